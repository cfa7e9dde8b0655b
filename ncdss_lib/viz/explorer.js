// The explorers of a page: views of a picture (label maps over a photo, on canvases), a few native controls, numbers, curves with
// a moving point, and things to try. For each kind of explorer one function puts them together. Plain JavaScript, no library,
// nothing is fetched.
(() => {
  "use strict";
  const IGNORE = 255, MASK = 254, NONE = "–";

  function h(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children);
    return node;
  }
  const percent = (part, whole) => (whole ? `${(100 * part / whole).toFixed(1)} %` : NONE);
  const share = (value) => (value === null || value === undefined ? NONE : `${(100 * value).toFixed(1)} %`);
  const ratio = (part, whole) => (whole ? part / whole : null);
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const theme = (root, name) => getComputedStyle(root).getPropertyValue(name).trim();

  // --- pictures ---------------------------------------------------------------------------------

  async function pixels(address) { // RGBA of an image in the page
    const image = new Image();
    image.src = address;
    await image.decode();
    const canvas = h("canvas", { width: image.naturalWidth, height: image.naturalHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }
  async function numbers(address) { // an 8-bit map: the red channel
    const { data } = await pixels(address);
    return Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
  }
  async function open(picture) { // decoded once, when first looked at
    if (!picture.opened) {
      const names = Object.keys(picture.maps);
      const decoded = [pixels(picture.image), ...names.map((name) => numbers(picture.maps[name]))];
      const [photo, ...maps] = await Promise.all(decoded);
      const { width, height } = photo;
      picture.opened = { photo, width, height, maps: Object.fromEntries(names.map((n, i) => [n, maps[i]])) };
    }
    return picture.opened;
  }
  function table(look) { // labels -> colours, names, stripes
    const colours = Array(256).fill([255, 255, 255]), names = {}, striped = Array(256).fill(false);
    for (const [label, name, colour, stripes] of look.labels) {
      colours[label] = rgb(colour);
      names[label] = name;
      striped[label] = stripes;
    }
    return { colours, names, striped };
  }
  const NOVEL_MASK = table({ labels: [[0, "not in the mask", "#d9d9d9", false], [1, "in the novel mask", "#d55e00", false]] });
  const SALIENT = table({ labels: [[0, "not salient", "#d9d9d9", false], [1, "salient", "#d55e00", false]] });

  // A layer says for pixel i at (x, y) which colour to mix into the grey photo and how strongly; null shows the photo itself.
  const labelLayer = (labels, look, opacity = 0.7) => {
    const period = (open) => Math.max(6, Math.floor(Math.min(open.width, open.height) / 14));
    return {
      name: (i) => look.names[labels[i]] ?? `label ${labels[i]}`,
      pixel: (i, x, y, open) => {
        const label = labels[i], stripe = period(open);
        const light = look.striped[label] && (x + y) % stripe < Math.floor(stripe / 2);
        return [look.colours[label], label === IGNORE ? 0.9 : label === 0 ? 0 : light ? 0.45 * opacity : opacity];
      },
    };
  };
  // Matplotlib's magma, the colours of entropy in the figures as well.
  const MAGMA = ["#000004", "#231151", "#5f187f", "#982d80", "#d3436e", "#f8765c", "#febb81", "#fcfdbf"].map(rgb);
  const heatLayer = (values, what) => ({
    name: (i) => `${what} ${(values[i] / 255).toFixed(2)}`,
    pixel: (i) => {
      const place = (values[i] / 255) * (MAGMA.length - 1);
      const k = Math.min(MAGMA.length - 2, Math.floor(place)), t = place - k;
      return [MAGMA[k].map((c, j) => c * (1 - t) + MAGMA[k + 1][j] * t), 1];
    },
  });
  const photoLayer = { name: () => "photo", pixel: () => null };

  function paint(opened, left, right, divider) {
    const { width, height, photo } = opened, out = new ImageData(width, height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        const red = photo.data[4 * i], green = photo.data[4 * i + 1], blue = photo.data[4 * i + 2];
        const mixed = (right && x >= divider * width ? right : left).pixel(i, x, y, opened);
        const grey = ((red + green + blue) / 3) * 0.75 + 51;
        const target = mixed ? mixed[0].map((c) => grey * (1 - mixed[1]) + c * mixed[1]) : [red, green, blue];
        out.data.set([...target.map(Math.round), 255], 4 * i);
      }
    }
    return out;
  }

  // Views of one picture side by side, or two of them divided by a line that can be dragged. A click opens a view large.
  class Board {
    constructor(label) {
      this.label = label;
      this.list = h("div", { class: "ncdss-views" });
      this.point = h("p", { class: "ncdss-point" }, "Point at a picture to read a pixel; click to enlarge it.");
      this.node = h("div", { class: "ncdss-board" }, this.list, this.point);
      this.cells = [];
    }
    cell(number) { // made when first needed
      while (this.cells.length <= number) {
        const n = this.cells.length, canvas = h("canvas", { role: "img" }), title = h("p", { class: "ncdss-title" });
        const button = h("button", { type: "button", class: "ncdss-enlarge", onclick: () => this.enlarge(n) }, "⤢");
        const cell = { canvas, title, button, node: h("div", { class: "ncdss-view" }, canvas, button, title) };
        for (const event of ["pointermove", "pointerdown"]) {
          canvas.addEventListener(event, (e) => this.read(e, cell)); // a tap does not move
        }
        canvas.addEventListener("click", () => this.onDrag ? null : this.enlarge(n));
        this.cells.push(cell);
      }
      return this.cells[number];
    }
    show(opened, views, line = null) { // views: [title, layer]; line: {left, right, divider, drag}
      const shown = line ? [[`${line.left} | ${line.right}`]] : views, { width, height } = opened;
      const layerOf = Object.fromEntries(views);
      this.onDrag = line?.drag;
      this.list.classList.toggle("ncdss-divided", Boolean(line));
      this.list.style.setProperty("--views", shown.length);
      shown.forEach(([title, layer], n) => {
        const cell = this.cell(n), { canvas } = cell;
        if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
        cell.layers = line ? [layerOf[line.left], layerOf[line.right], line.divider] : [layer, null, 1];
        const context = canvas.getContext("2d");
        context.putImageData(paint(opened, ...cell.layers), 0, 0);
        if (line && line.divider > 0 && line.divider < 1) {
          context.fillStyle = "#fff";
          context.fillRect(Math.round(line.divider * width) - 1, 0, 2, height);
        }
        canvas.setAttribute("aria-label", `${this.label}: ${title}`);
        cell.button.setAttribute("aria-label", `enlarge: ${title}`);
        cell.title.textContent = title;
      });
      this.list.replaceChildren(...shown.map((_, n) => this.cells[n].node));
    }
    read(event, { canvas, layers }) {
      const box = canvas.getBoundingClientRect(), { width, height } = canvas, [left, right, divider] = layers;
      const x = Math.floor(((event.clientX - box.left) / box.width) * width);
      const y = Math.floor(((event.clientY - box.top) / box.height) * height);
      if (this.onDrag && event.buttons) this.onDrag(Math.min(1, Math.max(0, x / width)));
      if (x < 0 || y < 0 || x >= width || y >= height) return;
      const layer = right && x >= divider * width ? right : left;
      this.point.textContent = `Pixel ${x}, ${y}: ${layer.name(y * width + x)}`;
    }
    enlarge(number) {
      const shown = this.cells.filter((cell) => cell.node.isConnected), title = h("p"), large = h("canvas", { role: "img" });
      let at = number;
      const draw = () => {
        const { canvas } = shown[at];
        Object.assign(large, { width: canvas.width, height: canvas.height });
        large.style.setProperty("--ratio", canvas.width / canvas.height);
        large.getContext("2d").drawImage(canvas, 0, 0);
        large.setAttribute("aria-label", canvas.getAttribute("aria-label"));
        title.textContent = `${shown[at].title.textContent} (${at + 1} of ${shown.length})`;
      };
      const step = (by) => { at = (at + by + shown.length) % shown.length; draw(); };
      const button = (text, name, act) => h("button", { type: "button", "aria-label": name, onclick: act }, text);
      const bar = h("div", { class: "ncdss-pick" }, button("‹", "previous view", () => step(-1)), title,
        button("›", "next view", () => step(1)), button("×", "close", () => dialog.close()));
      const dialog = h("dialog", { class: "ncdss-large", "aria-label": "picture, enlarged" }, bar, large);
      dialog.addEventListener("keydown", (e) => {
        if (e.key === "ArrowLeft") step(-1);
        if (e.key === "ArrowRight") step(1);
      });
      dialog.addEventListener("click", (e) => { if (e.target === dialog || e.target === large) dialog.close(); });
      dialog.addEventListener("close", () => dialog.remove());
      this.node.append(dialog);
      draw();
      dialog.showModal();
    }
  }

  // --- controls ---------------------------------------------------------------------------------

  class Panel { // controls that call `change` when one of them moves, numbers, and a legend
    constructor(change) {
      this.change = change;
      this.node = h("div", { class: "ncdss-controls" });
      this.list = h("dl", { "aria-live": "polite" });
      this.legendNode = h("ul", { class: "ncdss-legend" });
      this.controls = {};
    }
    row(label, control, ...more) {
      // counted over all explorers of the page, each of which brings this script
      window.ncdssControls = (window.ncdssControls ?? 0) + 1;
      control.id = `ncdss-control-${window.ncdssControls}`;
      control.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab takes the arrow keys otherwise
      this.controls[control.name] = control;
      this.node.append(h("div", { class: "ncdss-control" }, h("label", { for: control.id }, label), ...more));
      return control;
    }
    range(name, label, { min = 0, max = 1, step = 0.01, value, text = (v) => v.toFixed(2) }) {
      const input = h("input", { type: "range", name, min, max, step, value });
      const output = h("output", {}, text(Number(value)));
      input.addEventListener("input", () => {
        output.textContent = text(Number(input.value));
        input.setAttribute("aria-valuetext", output.textContent);
        this.change();
      });
      input.setAttribute("aria-valuetext", output.textContent);
      this.row(label, input, input, output);
      output.setAttribute("for", input.id);
      return input;
    }
    choice(name, label, options, value) { // options: [value, text]
      const select = h("select", { name, class: "ncdss-wide", onchange: () => this.change() });
      for (const [v, text] of options) select.append(h("option", { value: v, selected: String(v) === String(value) }, text));
      return this.row(label, select, select);
    }
    pick(label, items) { // one of many, with buttons to step through
      const select = h("select", { name: "picture", onchange: () => this.change() });
      items.forEach((text, i) => select.append(h("option", { value: i }, text)));
      const step = (by) => {
        select.selectedIndex = (select.selectedIndex + by + items.length) % items.length;
        this.change();
      };
      const button = (text, name, by) => h("button", { type: "button", "aria-label": name, onclick: () => step(by) }, text);
      const buttons = [button("‹", `previous ${label}`, -1), select, button("›", `next ${label}`, 1)];
      this.row(label, select, h("div", { class: "ncdss-pick" }, ...buttons));
      return select;
    }
    compare(titles, left, right) { // returns a function that gives Board.show its line, or null for side by side
      const view = this.choice("view", "show", [["side", "side by side"], ["line", "two, divided by a line"]], "side");
      const options = titles.map((title) => [title, title]);
      const sides = [this.choice("left", "left", options, left), this.choice("right", "right", options, right)];
      const text = (v) => `${Math.round(100 * v)} %`;
      const divider = this.range("divider", "line", { value: 0.5, text });
      const drag = (value) => { divider.value = value; divider.dispatchEvent(new Event("input")); };
      const hide = () => {
        for (const control of [...sides, divider]) control.closest(".ncdss-control").hidden = view.value === "side";
      };
      view.addEventListener("change", hide);
      hide();
      return () => view.value === "side" ? null
        : { left: sides[0].value, right: sides[1].value, divider: Number(divider.value), drag };
    }
    set(values) { // as if somebody had moved these controls
      for (const [name, value] of Object.entries(values)) {
        const control = this.controls[name];
        control.value = value;
        control.dispatchEvent(new Event(control.type === "range" ? "input" : "change"));
      }
    }
    read(values) { // [key, what, text]
      this.list.replaceChildren(...values.map(([key, what, text]) =>
        h("div", {}, h("dt", {}, what), h("dd", { "data-key": key }, text))));
    }
    legend(entries) { // [colour, name, striped]
      this.legendNode.replaceChildren(...entries.map(([colour, name, striped]) => {
        const light = `color-mix(in srgb, ${colour} 45%, #aaa)`;
        const face = striped ? `repeating-linear-gradient(135deg, ${colour} 0 4px, ${light} 4px 8px)` : colour;
        return h("li", {}, h("span", { class: "ncdss-swatch", style: `background:${face}` }), name);
      }));
    }
  }
  function present(look, ...maps) { // legend entries of the labels in some maps
    const there = new Set(maps.flatMap((map) => [...new Set(map)]));
    const named = look.labels.filter(([label]) => there.has(label) && label !== 0);
    return named.map(([, name, colour, striped]) => [colour, name, striped]);
  }
  const once = (entries) => [...new Map(entries.map((entry) => [entry[1], entry])).values()]; // by name
  const numbered = (pictures) => pictures.map((p, i) => `${i + 1}${p.note ? ` (${p.note})` : ""}: ${p.id}`);

  // --- curves -----------------------------------------------------------------------------------

  // Values 0..1 (null where there are none) by step, lines told apart by dashes as well; a point moves along each.
  // ticks: a text for each step, "" for none; marks: [step, text] of settings to remember.
  function curve(title, ticks, lines, at, marks = []) {
    const svg = (tag, attributes, ...children) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      node.append(...children);
      return node;
    };
    const [W, H, L, R, B] = [340, 180, 44, 90, 26], n = ticks.length, T = 24 + 13 * marks.length;
    const values = Object.values(lines).flat().filter((v) => v !== null);
    const low = Math.max(0, Math.floor(10 * Math.min(...values) - 0.3) / 10);
    const high = Math.min(1, Math.ceil(10 * Math.max(...values) + 0.3) / 10);
    const x = (i) => L + (n > 1 ? (i / (n - 1)) * (W - L - R) : 0);
    const y = (v) => H - B - ((v - low) / (high - low || 1)) * (H - B - T);
    const text = (px, py, words, anchor = "middle", more = {}) =>
      svg("text", { x: px, y: py, "text-anchor": anchor, "font-size": 12, fill: "currentColor", ...more }, words);
    const told = Object.entries(lines).map(([who, v]) => `${who} ${v.map((p) => (p === null ? "none" : Math.round(100 * p))).join(", ")} percent`);
    const node = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: ${told.join("; ")}` });

    // axes, the settings to remember, and where we are
    node.append(text(0, 12, title, "start", { "font-weight": 600 }));
    for (const v of [low, high]) {
      node.append(svg("line", { x1: L, x2: W - R, y1: y(v), y2: y(v), stroke: "currentColor", "stroke-opacity": 0.2 }));
      node.append(text(L - 5, y(v) + 4, `${Math.round(100 * v)} %`, "end"));
    }
    ticks.forEach((tick, i) => node.append(text(x(i), H - 8, tick)));
    marks.forEach(([i, words], row) => { // each in a row of its own, within the picture
      const half = 3.3 * words.length, place = Math.min(W - half, Math.max(half, x(i)));
      node.append(text(place, 27 + 13 * row, words));
      node.append(svg("line", { x1: x(i), x2: x(i), y1: 31 + 13 * row, y2: H - B, stroke: "currentColor", "stroke-opacity": 0.6, "stroke-dasharray": "2 3" }));
    });
    node.append(svg("line", { x1: x(at), x2: x(at), y1: T, y2: H - B, stroke: "currentColor", "stroke-opacity": 0.35, "stroke-width": 2 }));

    // lines, their points, and their names at the right end
    const ends = [];
    Object.entries(lines).forEach(([who, points], k) => {
      const stroke = ["var(--good)", "var(--bad)", "var(--soft)"][k];
      const path = points.map((v, i) => (v === null ? "" : `${i && points[i - 1] !== null ? "L" : "M"}${x(i)} ${y(v)}`)).join("");
      node.append(svg("path", { d: path, fill: "none", stroke, "stroke-width": 2, "stroke-dasharray": ["none", "5 3", "1 3"][k] }));
      if (points[at] !== null) node.append(svg("circle", { cx: x(at), cy: y(points[at]), r: 5, fill: stroke, stroke: "var(--face)", "stroke-width": 1.5 }));
      const last = points.findLast((v) => v !== null);
      if (last !== undefined) ends.push([who, y(last), stroke]);
    });
    ends.sort((a, b) => a[1] - b[1]);
    let floor = -Infinity;
    for (const [who, py, fill] of ends) {
      floor = Math.max(py + 4, floor + 13);
      node.append(text(W - R + 8, floor, who, "start", { fill, "font-weight": 600 }));
    }
    return node;
  }
  const every = (values, keep) => values.map((v) => (keep.includes(v) ? String(v) : ""));

  // --- kinds ------------------------------------------------------------------------------------

  const THRESHOLD_TICKS = [0, 0.5, 0.9, 0.99, 0.999];
  const marksOf = (values, chosen, published) => chosen === published
    ? [[values.indexOf(chosen), `this run, published: ${chosen}`]]
    : [[values.indexOf(chosen), `this run: ${chosen}`], [values.indexOf(published), `published: ${published}`]];

  // Confident base classes and the novel mask for the k-th threshold, and what is in the mask.
  function removal({ label, level, salient, truth }, k, numBase) {
    const base = new Uint8Array(label.length), mask = new Uint8Array(label.length);
    let known = 0, novel = 0, there = 0;
    for (let i = 0; i < label.length; i++) {
      const sure = label[i] > 0 && level[i] > k, isNovel = truth[i] > numBase && truth[i] !== IGNORE;
      if (sure) base[i] = label[i];
      if (isNovel) there++;
      if (!salient[i] || sure) continue;
      mask[i] = 1;
      if (truth[i] !== IGNORE) { known++; novel += isNovel; }
    }
    return { base, mask, known, novel, there };
  }

  const kinds = {
    layers(data, { body, panel, board }) {
      const names = Object.keys(data.looks), looks = Object.fromEntries(names.map((name) => [name, table(data.looks[name])]));
      const picture = panel.pick("image", numbered(data.pictures)), titles = ["image", ...names];
      const line = panel.compare(titles, names[0], names[1] ?? "image");
      body.append(panel.node, board.node, panel.list, panel.legendNode);
      return async () => {
        const opened = await open(data.pictures[picture.value]);
        const views = names.map((name) => [name, labelLayer(opened.maps[name], looks[name])]);
        board.show(opened, [["image", photoLayer], ...views], line());
        panel.read(names.map((name) => {
          const map = opened.maps[name], sizes = new Map();
          for (const label of map) sizes.set(label, (sizes.get(label) ?? 0) + 1);
          const parts = [...sizes].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 3);
          return [name, name, parts.map(([label, n]) => `${looks[name].names[label] ?? label} ${percent(n, map.length)}`).join(", ")];
        }));
        panel.legend(once(names.flatMap((name) => present(data.looks[name], opened.maps[name]))));
      };
    },

    threshold(data, { body, panel, board }) {
      const look = table(data.look), last = data.thresholds.length - 1, chart = h("div", { class: "ncdss-charts" });
      const picture = panel.pick("image", numbered(data.pictures)), text = (k) => String(data.thresholds[k]);
      const tau = panel.range("tau", "threshold τ", { value: data.thresholds.indexOf(data.chosen), max: last, step: 1, text });
      const titles = ["image", "confidently base", "novel mask M", "truth (hidden)"];
      const line = panel.compare(titles, titles[2], titles[3]);
      body.append(panel.node, board.node, panel.list, chart, panel.legendNode);
      // over all novel images: pixels that stay in the masks, by what they are
      const stays = data.thresholds.map((_, k) => data.counts.map((row) => sum(row.slice(0, k + 1))));
      const curves = {
        "really novel": stays.map((kinds) => ratio(kinds[0], sum(kinds))),
        "covered": stays.map((kinds) => ratio(kinds[0], data.novel)),
        "base": stays.map((kinds) => ratio(kinds[1], sum(kinds))),
      };
      return async () => {
        const opened = await open(data.pictures[picture.value]), k = Number(tau.value), { truth } = opened.maps;
        const { base, mask, known, novel } = removal(opened.maps, k, data.num_base);
        const layers = [photoLayer, labelLayer(base, look), labelLayer(mask, NOVEL_MASK), labelLayer(truth, look)];
        board.show(opened, titles.map((title, n) => [title, layers[n]]), line());
        panel.read([
          ["novel", "this image: of the mask, really novel", percent(novel, known)],
          ["all-novel", "all novel images: of the masks, really novel", share(curves["really novel"][k])],
          ["covered", "of the novel objects, covered by masks", share(curves.covered[k])],
          ["all-base", "of the masks, objects of base classes", share(curves.base[k])],
        ]);
        const marks = marksOf(data.thresholds, data.chosen, data.published);
        const title = "masks of all novel images, by threshold";
        if (data.novel) chart.replaceChildren(curve(title, every(data.thresholds, THRESHOLD_TICKS), curves, k, marks));
        panel.legend([["#d55e00", "novel mask M", false], ...once(present(data.look, base, truth))]);
      };
    },

    pipeline(data, { body, panel, board }) {
      const look = table(data.look), pseudo = table(data.pseudo_look), last = data.thresholds.length - 1;
      const picture = panel.pick("image", numbered(data.pictures)), chart = h("div", { class: "ncdss-charts" });
      const text = (k) => String(data.thresholds[k]);
      const tau = panel.range("tau", "threshold τ", { value: data.thresholds.indexOf(data.chosen), max: last, step: 1, text });
      const titles = ["1 image", "2 salient", "3 recognised", "4 novel mask M", "5 pseudo-label", "6 doubt (entropy)", "7 prediction of EUMS", "truth (hidden)"];
      const line = panel.compare(titles, titles[6], titles[7]);
      body.append(panel.node, board.node, panel.list, chart, panel.legendNode);
      return async () => {
        const p = data.pictures[picture.value], opened = await open(p), k = Number(tau.value), { maps } = opened;
        const about = data.about[p.id], found = removal(maps, k, data.num_base), { base, mask } = found;
        const label = base.map((own, i) => own || (mask[i] ? about.label : 0));
        const layers = [
          photoLayer, labelLayer(maps.salient, SALIENT), labelLayer(base, look), labelLayer(mask, NOVEL_MASK),
          labelLayer(label, pseudo), heatLayer(maps.entropy, "entropy"), labelLayer(maps.prediction, look), labelLayer(maps.truth, look),
        ];
        board.show(opened, titles.map((title, n) => [title, layers[n]]), line());
        let right = 0, seen = 0, truly = 0;
        for (let i = 0; i < label.length; i++) {
          if (mask[i] && maps.truth[i] !== IGNORE) { seen++; right += maps.truth[i] === about.class; }
          if (maps.truth[i] > data.num_base && maps.truth[i] !== IGNORE) truly += maps.prediction[i] === maps.truth[i];
        }
        panel.read([
          ["novel", "of the mask, really novel", percent(found.novel, found.known)],
          ["right", `of the mask, ${about.class_name ?? "the class"} of cluster ${about.cluster}`, percent(right, seen)],
          ["rank", `doubt: rank ${about.rank} of ${data.images}`, about.split],
          ["prediction", "novel pixels: EUMS is right", percent(truly, found.there)],
        ]);
        const at = data.thresholds.map((_, k) => removal(maps, k, data.num_base));
        const lines = {
          "really novel": at.map((f) => ratio(f.novel, f.known)),
          "covered": at.map((f) => ratio(f.novel, f.there)),
        };
        const title = "the mask of this image, by threshold", marks = marksOf(data.thresholds, data.chosen, data.published);
        if (found.there) chart.replaceChildren(curve(title, every(data.thresholds, THRESHOLD_TICKS), lines, k, marks));
        const cluster = present(data.pseudo_look, label).filter(([, , striped]) => striped);
        panel.legend([["#d55e00", "salient, or in the mask", false], ...once([...present(data.look, maps.truth, maps.prediction), ...cluster])]);
      };
    },

    clusters(data, { body, panel }) {
      const names = table(data.look).names, about = {}, chart = h("div", { class: "ncdss-charts" });
      const tiles = h("ul", { class: "ncdss-tiles", tabindex: 0, role: "list", "aria-label": "members of the cluster" });
      const text = (v) => `K = ${data.choices[v]}`, most = data.choices.length - 1;
      const k = panel.range("K", "clusters K", { value: data.choices.indexOf(data.chosen), max: most, step: 1, text });
      const cluster = panel.choice("cluster", "cluster", [], 1);
      const images = new Map(Object.entries(data.thumbnails).map(([row, src]) => {
        const i = Number(row), id = data.ids[i], name = data.main_class[i] ? names[data.main_class[i]] : "no novel class";
        return [i, h("li", { class: "ncdss-tile", title: `${id}: ${name}` }, h("img", { src, alt: `${id}, really ${name}` }))];
      }));
      body.append(panel.node, tiles, panel.list, chart, panel.legendNode);
      for (const K of data.choices) { // of each cluster: its members, the class of most of them, and how many are of that class
        about[K] = Array.from({ length: K }, (_, c) => {
          const members = data.assign[K].flatMap((own, i) => (own === c + 1 ? [i] : [])), votes = {};
          for (const i of members) if (data.main_class[i]) votes[data.main_class[i]] = (votes[data.main_class[i]] ?? 0) + 1;
          const [label, right] = Object.entries(votes).sort((a, b) => b[1] - a[1] || a[0] - b[0])[0] ?? [0, 0];
          return { label: Number(label), right, members };
        });
      }
      const known = data.main_class.filter((c) => c > 0).length;
      const purity = data.choices.map((K) => ratio(sum(about[K].map((a) => a.right)), known));
      let offered = 0;
      return async () => {
        const K = data.choices[k.value];
        if (offered !== K) {
          const was = Math.min(Number(cluster.value) || 1, K);
          const name = (a) => `${a.members.length} images${a.label ? `, most ${names[a.label]}` : ""}`;
          cluster.replaceChildren(...about[K].map((a, c) => h("option", { value: c + 1, selected: c + 1 === was }, `${c + 1}: ${name(a)}`)));
          offered = K;
        }
        const mine = about[K][Number(cluster.value) - 1], shown = mine.members.filter((i) => images.has(i));
        for (const i of shown) images.get(i).className = `ncdss-tile ${data.main_class[i] === mine.label && mine.label ? "ncdss-clean" : "ncdss-unclean"}`;
        tiles.replaceChildren(...shown.map((i) => images.get(i)));
        panel.read([
          ["images", "images in this cluster", shown.length < mine.members.length ? `${mine.members.length}, ${shown.length} shown` : String(mine.members.length)],
          ["class", "class of most of them", mine.label ? names[mine.label] : NONE],
          ["right", "that are of this class", mine.label ? percent(mine.right, mine.members.length) : NONE],
          ["purity", `purity with K = ${K}`, share(purity[k.value])],
        ]);
        const marks = [[data.choices.indexOf(data.chosen), `K = N = ${data.chosen}`], [data.choices.indexOf(data.over), `K = ${data.over}`]];
        if (known) chart.replaceChildren(curve("purity by number of clusters", data.choices.map(String), { purity }, Number(k.value), data.over === data.chosen ? marks.slice(0, 1) : marks));
        panel.legend([["var(--good)", "of the class of most", false], ["var(--bad)", "of another class, or of none (dashed)", false]]);
      };
    },

    ranking(data, { body, panel, board }) {
      const { id, entropy, cluster, right: rightPixels, pixels: regionPixels } = data.table; // columns, by rank
      const order = entropy.map((_, i) => i), rows = data.pictures.map((p) => id.indexOf(p.id));
      const looks = { pseudo: table(data.pseudo_look), truth: table(data.truth_look) };
      const tiles = h("div", { class: "ncdss-tiles ncdss-strip", role: "group", "aria-label": "images in the order of their entropy" });
      let current = 0;
      const buttons = data.pictures.map((p, i) => {
        const tile = h("button", { type: "button", class: "ncdss-tile", onclick: () => { current = i; panel.change(); } }, h("img", { src: p.image, alt: "" }));
        tiles.append(tile);
        return tile;
      });
      const clean = panel.range("share", "clean share", { value: data.chosen, min: 0.01, max: 0.99, step: 0.01 });
      const titles = ["image", "pseudo-label", "entropy", "truth (hidden)"], line = panel.compare(titles, titles[1], titles[2]);
      const chart = h("div", { class: "ncdss-charts" });
      const groups = data.per === "dataset" ? [order] : [...new Set(cluster)].map((c) => order.filter((i) => cluster[i] === c));
      const split = (value) => {
        const chosen = new Set();
        for (const group of groups) { // rows are in ascending entropy already
          const n = Math.floor(group.length * value + (data.per === "dataset" ? 0 : 0.5));
          group.slice(0, n).forEach((i) => entropy[i] !== null && chosen.add(i));
        }
        return chosen;
      };
      const rightShare = (chosen, side) => { // of the pixels in the pseudo-labels of one side
        const mine = order.filter((i) => chosen.has(i) === side);
        return ratio(sum(mine.map((i) => rightPixels[i])), sum(mine.map((i) => regionPixels[i])));
      };
      const shares = Array.from({ length: 33 }, (_, n) => (3 * n + 2) / 100), sides = shares.map(split);
      const curves = { clean: sides.map((s) => rightShare(s, true)), unclean: sides.map((s) => rightShare(s, false)) };
      const nearest = (value) => shares.reduce((best, s, n) => (Math.abs(s - value) < Math.abs(shares[best] - value) ? n : best), 0);
      const isKnown = sum(regionPixels) > 0;
      body.append(tiles, panel.node, board.node, panel.list, chart, panel.legendNode);
      return async () => {
        const chosen = split(Number(clean.value)), opened = await open(data.pictures[current]), row = rows[current], { maps } = opened;
        const layers = [photoLayer, labelLayer(maps.pseudo, looks.pseudo), heatLayer(maps.entropy, "entropy"), labelLayer(maps.truth, looks.truth)];
        board.show(opened, titles.map((title, n) => [title, layers[n]]), line());
        buttons.forEach((tile, i) => {
          const side = chosen.has(rows[i]) ? "clean" : "unclean";
          tile.className = `ncdss-tile ncdss-${side}`;
          tile.setAttribute("aria-pressed", String(i === current));
          tile.setAttribute("aria-label", `rank ${rows[i] + 1}, ${side}`);
        });
        panel.read([
          ["clean-right", `right pixels in the ${chosen.size} clean pseudo-labels`, share(rightShare(chosen, true))],
          ["unclean-right", `right pixels in the ${order.length - chosen.size} unclean ones`, share(rightShare(chosen, false))],
          ["image", `this image: rank ${row + 1}, entropy ${entropy[row] ?? "∞"}, ${chosen.has(row) ? "clean" : "unclean"}`, percent(rightPixels[row], regionPixels[row])],
        ]);
        const ticks = shares.map((s, n) => (n % 8 === 0 ? s.toFixed(2) : "")), at = nearest(Number(clean.value));
        const marks = data.chosen === data.published ? [[nearest(data.chosen), `this run, published: ${data.chosen.toFixed(2)}`]]
          : [[nearest(data.chosen), `this run: ${data.chosen}`], [nearest(data.published), `published: ${data.published.toFixed(2)}`]];
        if (isKnown) chart.replaceChildren(curve("right pixels on each side, by clean share", ticks, curves, at, marks));
        const frames = [["var(--good)", "clean", false], ["var(--bad)", "unclean (dashed)", false]];
        panel.legend([...frames, ...once([...present(data.pseudo_look, maps.pseudo), ...present(data.truth_look, maps.truth)])]);
      };
    },

    teaching(data, { body, panel, board }) {
      const pseudo = table(data.pseudo_look), truth = table(data.truth_look), charts = h("div", { class: "ncdss-charts" });
      const last = data.epochs.length - 1, when = (e) => (data.epochs[e] === data.epochs[last] ? "end" : `epoch ${data.epochs[e]}`);
      const picture = panel.pick("image", numbered(data.pictures));
      const epoch = panel.range("epoch", "before epoch", { value: last, max: last, step: 1, text: when });
      const tau = panel.range("confidence", "confidence", { value: data.chosen, max: 0.95, step: 1 / data.steps });
      const titles = ["image", "student", "teacher", "what is taught", "discarded label", "truth (hidden)"];
      const line = panel.compare(titles, titles[1], titles[3]);
      body.append(panel.node, board.node, panel.list, charts, panel.legendNode);
      // pixels, by the epoch and by the teacher's probability in steps
      const measure = (maps, E) => {
        const student = maps[`student_${E}`], teacher = maps[`teacher_${E}`], sure = maps[`sure_${E}`];
        const found = { all: student.length, novel: 0, student: 0, teacher: 0, kept: Array(data.steps + 1).fill(0), labelled: Array(data.steps + 1).fill(0), taught: Array(data.steps + 1).fill(0) };
        for (let i = 0; i < student.length; i++) {
          found.kept[sure[i]]++;
          if (maps.truth[i] <= data.num_base || maps.truth[i] === IGNORE) continue;
          const good = data.mapping[teacher[i]] === maps.truth[i];
          found.novel++;
          found.student += data.mapping[student[i]] === maps.truth[i];
          found.teacher += good;
          found.labelled[sure[i]]++;
          found.taught[sure[i]] += good;
        }
        return found;
      };
      const above = (counts, level) => sum(counts.slice(level));
      let everything; // measured once over all pictures: [epoch][picture]
      return async () => {
        everything ??= await Promise.all(data.epochs.map((E) => Promise.all(data.pictures.map(async (p) => measure((await open(p)).maps, E)))));
        const { maps, ...opened } = await open(data.pictures[picture.value]), e = Number(epoch.value), E = data.epochs[e];
        const level = Math.round(Number(tau.value) * data.steps), sure = maps[`sure_${E}`], taught = maps[`teacher_${E}`].map((label, i) => (sure[i] >= level ? label : IGNORE));
        const labels = [maps[`student_${E}`], maps[`teacher_${E}`], taught, maps.pseudo];
        const layers = [photoLayer, ...labels.map((map) => labelLayer(map, pseudo)), labelLayer(maps.truth, truth)];
        board.show(opened, titles.map((title, n) => [title, layers[n]]), line());
        const m = everything[e][picture.value];
        panel.read([
          ["student", "this image's novel pixels: the student is right", percent(m.student, m.novel)],
          ["teacher", "the teacher is right", percent(m.teacher, m.novel)],
          ["kept", "pixels that the teacher labels", percent(above(m.kept, level), m.all)],
          ["taught", "of the novel ones that it labels, right", percent(above(m.taught, level), above(m.labelled, level))],
        ]);
        const all = (e, key) => sum(everything[e].map((found) => found[key]));
        if (all(0, "novel")) { // somebody knows the truth of these images
          const by = (who) => data.epochs.map((_, n) => ratio(all(n, who), all(n, "novel")));
          const steps = Array.from({ length: data.steps }, (_, n) => n), at = (key, n) => sum(everything[e].map((found) => above(found[key], n)));
          const byStep = { "right": steps.map((n) => ratio(at("taught", n), at("labelled", n))), "labelled": steps.map((n) => ratio(at("labelled", n), all(e, "novel"))) };
          const ticks = data.epochs.map((E, n) => (n === last ? "end" : String(E)));
          const marks = marksOf(steps.map((n) => n / data.steps), data.chosen, data.published).filter(([i]) => i >= 0);
          charts.replaceChildren(
            curve("right novel pixels, all images here, by epoch", ticks, { student: by("student"), teacher: by("teacher") }, e),
            curve(`the teacher at ${when(e)}, by confidence`, steps.map((n) => (n % 5 ? "" : (n / data.steps).toFixed(2))), byStep, Math.min(level, data.steps - 1), marks),
          );
        }
        panel.legend(once([...labels.flatMap((map) => present(data.pseudo_look, map)), ...present(data.truth_look, maps.truth)]));
      };
    },

    predictions(data, { body, panel, board }) {
      const look = table(data.look), models = Object.keys(data.scores);
      const picture = panel.pick("image", numbered(data.pictures));
      const model = panel.choice("model", "model", models.map((m) => [m, m]), models[models.length - 1]);
      const classes = data.look.labels.filter(([label]) => label < Object.keys(data.scores[models[0]].per_class).length);
      const label = panel.choice("class", "class", [["all", "all classes"], ...classes.map(([value, name]) => [value, name])], "all");
      const titles = ["image", "prediction", "truth"], line = panel.compare(titles, titles[1], titles[2]);
      body.append(panel.node, board.node, panel.list, panel.legendNode);
      const kinds = [[1, "right", "#0072b2", false], [2, "said, but is not", "#d55e00", true], [3, "missed", "#f0e442", false]];
      const outcome = table({ labels: [...kinds, [IGNORE, "ignored", "#ffffff", false]] });
      return async () => {
        const opened = await open(data.pictures[picture.value]), { truth } = opened.maps, said = opened.maps[model.value];
        const chosen = label.value === "all" ? null : Number(label.value), scores = data.scores[model.value];
        const iou = (c) => {
          let both = 0, either = 0;
          for (let i = 0; i < truth.length; i++) {
            if (truth[i] === IGNORE) continue;
            both += truth[i] === c && said[i] === c;
            either += truth[i] === c || said[i] === c;
          }
          return [both, either];
        };
        let shown = labelLayer(said, look), entries = present(data.look, truth, said), numbers;
        if (chosen === null) {
          const there = classes.map(([c, name]) => [c, name, iou(c), truth.reduce((sum, t) => sum + (t === c), 0)]).filter(([c, , [, either]]) => c > 0 && either > 0);
          there.sort((a, b) => b[3] - a[3]); // the greatest object first
          const [kind, mean] = scores.novel_miou === null ? ["base", scores.base_miou] : ["novel", scores.novel_miou];
          numbers = [["miou", `${kind} mIoU of ${model.value}, all validation images`, share(mean)]];
          numbers.push(...there.slice(0, 3).map(([c, name, found]) => [`iou-${c}`, `IoU of ${name} on this image`, percent(...found)]));
        } else {
          const right = (t, i) => (t === IGNORE ? IGNORE : t === chosen ? (said[i] === chosen ? 1 : 3) : said[i] === chosen ? 2 : 0);
          shown = labelLayer(Uint8Array.from(truth, right), outcome);
          entries = [...kinds.map(([, name, colour, striped]) => [colour, name, striped]), ...present(data.look, truth)];
          const name = look.names[chosen];
          numbers = [[`iou-${chosen}`, `IoU of ${name} on this image`, percent(...iou(chosen))], ["iou-all", "on all validation images", share(scores.per_class[name])]];
        }
        const layers = [photoLayer, shown, labelLayer(truth, look)];
        board.show(opened, titles.map((title, n) => [title, layers[n]]), line());
        panel.read(numbers);
        panel.legend(entries);
      };
    },

    // Six frames of one image that follow each other until somebody takes hold of them.
    story(data, { root, body, board }) {
      const look = table(data.look), pseudo = table(data.pseudo_look), k = data.thresholds.indexOf(data.chosen);
      const [picture] = data.pictures, about = data.about[picture.id], still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      let at = 0, timer = null, draw = async () => {};
      const go = (n) => { at = (n + data.frames.length) % data.frames.length; draw(); };
      const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶"; play.setAttribute("aria-label", "play"); };
      const start = () => { timer = setInterval(() => go(at + 1), 2600); play.textContent = "❚❚"; play.setAttribute("aria-label", "pause"); };
      const play = h("button", { type: "button", onclick: () => (timer ? stop() : start()) });
      const steps = data.frames.map(([title, words], n) => h("button", { type: "button", class: "ncdss-step", onclick: () => { stop(); go(n); } },
        h("strong", {}, `${n + 1} ${title}`), h("span", {}, ` ${words}`)));
      const bar = h("div", { class: "ncdss-pick" }, h("button", { type: "button", "aria-label": "previous step", onclick: () => { stop(); go(at - 1); } }, "‹"),
        play, h("button", { type: "button", "aria-label": "next step", onclick: () => { stop(); go(at + 1); } }, "›"));
      body.classList.add("ncdss-story");
      body.append(h("div", {}, board.node, bar), h("ol", { class: "ncdss-steps" }, ...steps.map((step) => h("li", {}, step))));
      body.addEventListener("pointerdown", stop);
      new IntersectionObserver(([seen]) => { if (!seen.isIntersecting && timer) stop(); }).observe(root);
      stop();
      if (!still) start();
      draw = async () => {
        const opened = await open(picture), { maps } = opened, { base, mask } = removal(maps, k, data.num_base);
        const label = base.map((own, i) => own || (mask[i] ? about.label : 0));
        const layers = [photoLayer, labelLayer(maps.salient, SALIENT), labelLayer(base, look), labelLayer(mask, NOVEL_MASK), labelLayer(label, pseudo), labelLayer(maps.prediction, look)];
        board.show(opened, [[data.frames[at][0], layers[at]]]);
        steps.forEach((step, n) => step.setAttribute("aria-current", n === at ? "step" : "false"));
        root.dataset.frame = at;
      };
      return () => draw();
    },
  };

  function tries(list, panel) { // [do, see, controls]
    const items = list.map(([what, see, values]) => h("li", {}, what, " ",
      h("button", { type: "button", class: "ncdss-try", onclick: () => panel.set(values) }, "Do it"),
      h("details", {}, h("summary", {}, "What you should see"), see)));
    return h("section", { class: "ncdss-tries" }, h("strong", {}, list.length > 1 ? "Things to try" : "To try"), h("ol", {}, ...items));
  }

  window.ncdssExplore = async (root) => {
    const { tries: list, ...data } = JSON.parse(root.querySelector('script[type="application/json"]').textContent);
    const body = h("div", { class: "ncdss-body" });
    let draw = null, waiting = false, running = Promise.resolve();
    const redraw = () => { // once a frame, however many events there were; drawings do not overtake each other
      if (waiting || !draw) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; running = running.then(draw); });
    };
    const panel = new Panel(redraw), board = new Board("view");
    draw = kinds[root.dataset.kind](data, { root, body, panel, board });
    if (list?.length) { // beside the one curve, or below whatever there is
      const charts = root.dataset.kind === "teaching" ? null : body.querySelector(".ncdss-charts");
      body.append(h("div", { class: charts ? "ncdss-foot" : "" }, ...(charts ? [charts] : []), tries(list, panel)));
    }
    root.querySelector(".ncdss-still").replaceWith(body);
    await draw();
    root.dataset.ready = "true";
  };
})();
