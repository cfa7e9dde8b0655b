// The explorers of a page: a board (a canvas with label maps over a photo), a few native controls, a read-out, and for each kind
// of explorer one function that puts them together. Plain JavaScript, no library, nothing is fetched.
(() => {
  "use strict";
  const IGNORE = 255, NONE = "–";

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
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  // --- pictures -----------------------------------------------------------------------------------------------------------------

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
      const [photo, ...maps] = await Promise.all([pixels(picture.image), ...names.map((name) => numbers(picture.maps[name]))]);
      picture.opened = { photo, width: photo.width, height: photo.height, maps: Object.fromEntries(names.map((n, i) => [n, maps[i]])) };
    }
    return picture.opened;
  }
  function table(look) { // labels -> colours, names, stripes
    const colours = Array(256).fill([255, 255, 255]), names = {}, striped = Array(256).fill(false);
    for (const [label, name, colour, stripes] of look.labels) [colours[label], names[label], striped[label]] = [rgb(colour), name, stripes];
    return { colours, names, striped };
  }

  // A layer says for pixel i at (x, y) which colour to mix into the grey photo and how strongly; null shows the photo itself.
  const labelLayer = (labels, look, opacity = 0.7) => {
    const period = (open) => Math.max(6, Math.floor(Math.min(open.width, open.height) / 14));
    return {
      name: (i) => look.names[labels[i]] ?? `label ${labels[i]}`,
      pixel: (i, x, y, open) => {
        const label = labels[i], light = look.striped[label] && (x + y) % period(open) < Math.floor(period(open) / 2);
        return [look.colours[label], label === IGNORE ? 0.9 : label === 0 ? 0 : light ? 0.45 * opacity : opacity];
      },
    };
  };
  const VIRIDIS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"].map(rgb);
  const heatLayer = (values, what, scale = 255) => ({
    name: (i) => `${what} ${(values[i] / scale).toFixed(2)}`,
    pixel: (i) => {
      const place = (values[i] / scale) * (VIRIDIS.length - 1), k = Math.min(VIRIDIS.length - 2, Math.floor(place)), t = place - k;
      return [VIRIDIS[k].map((c, j) => c * (1 - t) + VIRIDIS[k + 1][j] * t), 0.85];
    },
  });
  const photoLayer = { name: () => "photo", pixel: () => null };

  class Board {
    constructor(label) {
      this.label = label;
      this.canvas = h("canvas", { role: "img", "aria-label": label });
      this.point = h("p", { class: "ncdss-point" }, "Point at the picture to read a pixel.");
      this.node = h("div", { class: "ncdss-board" }, this.canvas, this.point);
      for (const event of ["pointermove", "pointerdown"]) this.canvas.addEventListener(event, (e) => this.read(e)); // a tap does not move
    }
    show(open, left, right = null, divider = 1, description = "") {
      const { width, height, photo } = open, out = new ImageData(width, height);
      for (let y = 0, i = 0; y < height; y++) {
        for (let x = 0; x < width; x++, i++) {
          const red = photo.data[4 * i], green = photo.data[4 * i + 1], blue = photo.data[4 * i + 2];
          const mixed = (right && x >= divider * width ? right : left).pixel(i, x, y, open);
          const grey = ((red + green + blue) / 3) * 0.75 + 51;
          const target = mixed ? mixed[0].map((c) => grey * (1 - mixed[1]) + c * mixed[1]) : [red, green, blue];
          out.data.set([...target.map(Math.round), 255], 4 * i);
        }
      }
      if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
      const context = this.canvas.getContext("2d");
      context.putImageData(out, 0, 0);
      if (right && divider > 0 && divider < 1) {
        context.fillStyle = "#fff";
        context.fillRect(Math.round(divider * width) - 1, 0, 2, height);
      }
      this.canvas.setAttribute("aria-label", description ? `${this.label}: ${description}` : this.label);
      this.shown = { width, height, left, right, divider };
    }
    read(event) {
      if (!this.shown) return;
      const box = this.canvas.getBoundingClientRect(), { width, height, left, right, divider } = this.shown;
      const x = Math.floor(((event.clientX - box.left) / box.width) * width), y = Math.floor(((event.clientY - box.top) / box.height) * height);
      if (x < 0 || y < 0 || x >= width || y >= height) return;
      const layer = right && x >= divider * width ? right : left;
      this.point.textContent = `Pixel ${x}, ${y}: ${layer.name(y * width + x)}`;
    }
  }

  // --- controls -----------------------------------------------------------------------------------------------------------------

  class Panel { // controls that call `change` when one of them moves, and a read-out
    constructor(change) {
      this.change = change;
      this.node = h("div", { class: "ncdss-side" });
      this.list = h("dl", { "aria-live": "polite" });
      this.legendNode = h("ul", { class: "ncdss-legend" });
    }
    finish() { this.node.append(this.list, this.legendNode); return this.node; }
    row(label, control, ...more) {
      window.ncdssControls = (window.ncdssControls ?? 0) + 1; // over all explorers of the page, each of which brings this script
      control.id = `ncdss-control-${window.ncdssControls}`;
      control.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab takes the arrow keys otherwise
      const row = h("div", { class: "ncdss-control" }, h("label", { for: control.id }, label), ...more);
      this.node.append(row);
      return control;
    }
    range(name, label, { min = 0, max = 1, step = 0.01, value, text = (v) => v.toFixed(2) }) {
      const input = h("input", { type: "range", name, min, max, step, value }), output = h("output", {}, text(Number(value)));
      input.addEventListener("input", () => { output.textContent = text(Number(input.value)); this.change(); });
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
      const step = (by) => { select.selectedIndex = (select.selectedIndex + by + items.length) % items.length; this.change(); };
      const button = (text, name, by) => h("button", { type: "button", "aria-label": name, onclick: () => step(by) }, text);
      this.row(label, select, h("div", { class: "ncdss-pick" }, button("‹", `previous ${label}`, -1), select, button("›", `next ${label}`, 1)));
      return select;
    }
    read(values) { // [key, what, text]
      this.list.replaceChildren(...values.flatMap(([key, what, text]) => [h("dt", {}, what), h("dd", { "data-key": key }, text)]));
    }
    legend(entries) { // [colour, name, striped]
      this.legendNode.replaceChildren(...entries.map(([colour, name, striped]) => {
        const face = striped ? `repeating-linear-gradient(135deg, ${colour} 0 4px, color-mix(in srgb, ${colour} 45%, #aaa) 4px 8px)` : colour;
        return h("li", {}, h("span", { class: "ncdss-swatch", style: `background:${face}` }), name);
      }));
    }
  }
  function present(look, ...maps) { // legend entries of the labels in some maps
    const there = new Set(maps.flatMap((map) => [...new Set(map)]));
    return look.labels.filter(([label]) => there.has(label) && label !== 0).map(([, name, colour, striped]) => [colour, name, striped]);
  }
  const numbered = (pictures, what = "image") => pictures.map((p, i) => `${what} ${i + 1}: ${p.id}`);
  const OPACITY = { value: 0.7, text: (v) => `${Math.round(100 * v)} %` };
  const DIVIDER = { value: 0.5, text: (v) => `${Math.round(100 * v)} %` };

  // --- kinds --------------------------------------------------------------------------------------------------------------------

  const kinds = {
    layers(data, body, redraw) {
      const board = new Board("picture with labels"), panel = new Panel(redraw), names = Object.keys(data.looks);
      const looks = Object.fromEntries(names.map((name) => [name, [data.looks[name], table(data.looks[name])]]));
      const picture = panel.pick("image", numbered(data.pictures));
      const sides = [["photo", "the photo"], ...names.map((name) => [name, name])];
      const left = panel.choice("left", "left of the line", sides, names[0]), right = panel.choice("right", "right of it", sides, names[1] ?? "photo");
      const divider = panel.range("divider", "line", DIVIDER), opacity = panel.range("opacity", "opacity", OPACITY);
      body.append(board.node, panel.finish());
      return async () => {
        const opened = await open(data.pictures[picture.value]);
        const layer = (name) => (name === "photo" ? photoLayer : labelLayer(opened.maps[name], looks[name][1], Number(opacity.value)));
        board.show(opened, layer(left.value), layer(right.value), Number(divider.value), `${left.value} beside ${right.value}`);
        const shown = [...new Set([left.value, right.value])].filter((name) => name !== "photo");
        panel.read(shown.map((name) => {
          const map = opened.maps[name], sizes = new Map();
          for (const label of map) sizes.set(label, (sizes.get(label) ?? 0) + 1);
          const parts = [...sizes].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 4);
          return [name, name, parts.map(([label, n]) => `${looks[name][1].names[label] ?? label} ${percent(n, map.length)}`).join(", ")];
        }));
        const entries = new Map(shown.flatMap((name) => present(looks[name][0], opened.maps[name])).map((entry) => [entry[1], entry]));
        panel.legend([...entries.values()]);
      };
    },

    threshold(data, body, redraw) {
      const board = new Board("base-class removal"), panel = new Panel(redraw), look = table(data.look);
      const picture = panel.pick("image", numbered(data.pictures));
      const tau = panel.range("tau", "threshold τ", { value: data.chosen, min: 0, max: 1, step: 0.01 });
      const right = panel.choice("right", "right of the line", [["truth", "the truth (hidden)"], ["photo", "the photo"], ["probability", "probability"]], "truth");
      const divider = panel.range("divider", "line", { ...DIVIDER, value: 0.6 });
      body.append(board.node, panel.finish());
      return async () => {
        const opened = await open(data.pictures[picture.value]), { label, probability, salient, truth } = opened.maps, t = Number(tau.value);
        let base = 0, mask = 0, known = 0, novel = 0;
        const shown = Uint8Array.from(label, (own, i) => {
          const sure = own > 0 && probability[i] / 255 > t, left = salient[i] > 0 && !sure;
          base += sure; mask += left;
          if (left && truth[i] !== IGNORE) { known++; novel += truth[i] > data.num_base; }
          return sure ? own : left ? 254 : 0;
        });
        const own = { ...look, colours: look.colours.map((colour, k) => (k === 254 ? [213, 94, 0] : colour)), names: { ...look.names, 254: "novel mask M" } };
        const beside = { truth: labelLayer(truth, look), photo: photoLayer, probability: heatLayer(probability, "probability") };
        board.show(opened, labelLayer(shown, own), beside[right.value], Number(divider.value), `threshold ${t.toFixed(2)}`);
        const stays = data.counts.map((row) => row.reduce((sum, n, bin) => sum + (bin / 255 <= t ? n : 0), 0));
        const all = stays.reduce((a, b) => a + b, 0);
        panel.read([
          ["base", "this image: confidently base", percent(base, label.length)],
          ["mask", "this image: in the novel mask", percent(mask, label.length)],
          ["novel", "of that, really novel", percent(novel, known)],
          ["all-novel", "all novel images: of the masks, really novel", percent(stays[0], all)],
          ["all-base", "of the masks, base objects", percent(stays[1], all)],
          ["covered", "of the novel objects, in the masks", percent(stays[0], data.novel)],
        ]);
        panel.legend([["#d55e00", "novel mask M", false], ...present(data.look, shown, right.value === "truth" ? truth : [])]);
      };
    },

    clusters(data, body, redraw) {
      const panel = new Panel(redraw), names = table(data.look).names, tiles = h("ul", { class: "ncdss-tiles", tabindex: 0, role: "list", "aria-label": "members of the cluster" });
      const k = panel.range("K", "clusters K", { value: data.choices.indexOf(data.chosen), min: 0, max: data.choices.length - 1, step: 1, text: (v) => `K = ${data.choices[v]}` });
      const cluster = panel.choice("cluster", "cluster", [], 1);
      const images = new Map(Object.entries(data.thumbnails).map(([row, src]) => {
        const i = Number(row), id = data.ids[i];
        const name = data.main_class[i] ? names[data.main_class[i]] : "no novel class";
        return [i, h("li", { class: "ncdss-tile", title: `${id}: ${name}` }, h("img", { src, alt: `${id}, really ${name}` }))];
      }));
      body.append(tiles, panel.finish());
      let offered = 0;
      return async () => {
        const K = data.choices[k.value], of = data.assign[K];
        const groups = Array.from({ length: K }, (_, c) => of.flatMap((own, i) => (own === c + 1 ? [i] : [])));
        const about = groups.map((members) => {
          const votes = {};
          for (const i of members) if (data.main_class[i]) votes[data.main_class[i]] = (votes[data.main_class[i]] ?? 0) + 1;
          const [label, right] = Object.entries(votes).sort((a, b) => b[1] - a[1] || a[0] - b[0])[0] ?? [0, 0];
          return { label: Number(label), right, images: members.length };
        });
        if (offered !== K) {
          const was = Math.min(Number(cluster.value) || 1, K);
          cluster.replaceChildren(...about.map((a, c) => h("option", { value: c + 1, selected: c + 1 === was }, `${c + 1}: ${a.images} images`)));
          offered = K;
        }
        const chosen = Number(cluster.value), mine = about[chosen - 1];
        const shown = groups[chosen - 1].filter((i) => images.has(i));
        for (const i of shown) images.get(i).className = `ncdss-tile ${data.main_class[i] === mine.label && mine.label ? "ncdss-clean" : "ncdss-unclean"}`;
        tiles.replaceChildren(...shown.map((i) => images.get(i)));
        const withClass = data.main_class.filter((c) => c > 0).length;
        panel.read([
          ["images", "images in this cluster", shown.length < mine.images ? `${mine.images}, ${shown.length} shown` : String(mine.images)],
          ["class", "class of most of them", mine.label ? names[mine.label] : NONE],
          ["right", "that are of this class", mine.label ? percent(mine.right, mine.images) : NONE],
          ["purity", `purity with K = ${K}`, percent(about.reduce((sum, a) => sum + a.right, 0), withClass)],
        ]);
        panel.legend([["var(--good)", "of the cluster's class", false], ["var(--bad)", "of another class, or of none (dashed)", false]]);
      };
    },

    ranking(data, body, redraw) {
      const board = new Board("image of the ranking"), panel = new Panel(redraw);
      const { id, entropy, cluster, right: rightPixels, pixels: regionPixels } = data.table; // columns, by rank
      const order = entropy.map((_, i) => i), rows = data.pictures.map((p) => id.indexOf(p.id));
      const looks = { pseudo: table(data.pseudo_look), truth: table(data.truth_look) };
      const tiles = h("div", { class: "ncdss-tiles ncdss-strip", role: "group", "aria-label": "images in the order of their entropy" });
      let current = 0;
      const buttons = data.pictures.map((p, i) => {
        const tile = h("button", { type: "button", class: "ncdss-tile", onclick: () => { current = i; redraw(); } }, h("img", { src: p.image, alt: "" }));
        tiles.append(tile);
        return tile;
      });
      const clean = panel.range("share", "clean share", { value: data.chosen, min: 0.01, max: 0.99, step: 0.01 });
      const sides = [["pseudo", "pseudo-label"], ["entropy", "entropy"], ["truth", "the truth (hidden)"], ["photo", "the photo"]];
      const left = panel.choice("left", "left of the line", sides, "pseudo"), right = panel.choice("right", "right of it", sides, "entropy");
      const divider = panel.range("divider", "line", DIVIDER);
      const groups = data.per === "dataset" ? [order] : [...new Set(cluster)].map((c) => order.filter((i) => cluster[i] === c));
      const split = (value) => {
        const chosen = new Set();
        for (const group of groups) { // rows are in ascending entropy already
          const n = Math.floor(group.length * value + (data.per === "dataset" ? 0 : 0.5));
          group.slice(0, n).forEach((i) => entropy[i] !== null && chosen.add(i));
        }
        return chosen;
      };
      body.append(tiles, board.node, panel.finish());
      return async () => {
        const chosen = split(Number(clean.value)), opened = await open(data.pictures[current]), row = rows[current];
        const layer = (name) => (name === "photo" ? photoLayer : name === "entropy" ? heatLayer(opened.maps.entropy, "entropy") : labelLayer(opened.maps[name], looks[name]));
        board.show(opened, layer(left.value), layer(right.value), Number(divider.value), `${left.value} beside ${right.value}`);
        buttons.forEach((tile, i) => {
          const side = chosen.has(rows[i]) ? "clean" : "unclean";
          tile.className = `ncdss-tile ncdss-${side}`;
          tile.setAttribute("aria-pressed", String(i === current));
          tile.setAttribute("aria-label", `rank ${rows[i] + 1}, ${side}`);
        });
        const sum = (values, side) => order.reduce((total, i) => total + (chosen.has(i) === side ? values[i] : 0), 0);
        panel.read([
          ["clean", "clean images", String(chosen.size)],
          ["clean-right", "right pixels in their pseudo-labels", percent(sum(rightPixels, true), sum(regionPixels, true))],
          ["unclean", "unclean images", String(order.length - chosen.size)],
          ["unclean-right", "right pixels in theirs", percent(sum(rightPixels, false), sum(regionPixels, false))],
          ["image", `this image: rank ${row + 1}, entropy ${entropy[row] ?? "∞"}, ${chosen.has(row) ? "clean" : "unclean"}`, percent(rightPixels[row], regionPixels[row])],
        ]);
        const used = new Set([left.value, right.value]), entries = [["var(--good)", "clean", false], ["var(--bad)", "unclean (dashed)", false]];
        if (used.has("pseudo")) entries.push(...present(data.pseudo_look, opened.maps.pseudo));
        if (used.has("truth")) entries.push(...present(data.truth_look, opened.maps.truth));
        panel.legend(entries);
      };
    },

    teaching(data, body, redraw) {
      const board = new Board("student and teacher"), panel = new Panel(redraw), pseudo = table(data.pseudo_look), truth = table(data.truth_look);
      const last = data.epochs.length - 1, when = (e) => (data.epochs[e] === data.epochs[last] ? "end" : `epoch ${data.epochs[e]}`);
      const picture = panel.pick("image", numbered(data.pictures));
      const epoch = panel.range("epoch", "before epoch", { value: last, min: 0, max: last, step: 1, text: when });
      const tau = panel.range("confidence", "confidence", { value: data.chosen, min: 0, max: 0.95, step: 1 / data.steps });
      const sides = [["student", "student"], ["teacher", "teacher"], ["taught", "what is taught"], ["pseudo", "discarded label"], ["truth", "the truth (hidden)"]];
      const left = panel.choice("left", "left of the line", sides, "student"), right = panel.choice("right", "right of it", sides, "taught");
      const divider = panel.range("divider", "line", DIVIDER);
      const chart = h("div", {});
      panel.node.append(chart);
      body.append(board.node, panel.finish());
      const measure = (maps, E, level) => {
        const student = maps[`student_${E}`], teacher = maps[`teacher_${E}`], sure = maps[`sure_${E}`], found = { agree: 0, kept: 0, all: student.length, novel: 0, student: 0, teacher: 0, labelled: 0, taught: 0 };
        for (let i = 0; i < student.length; i++) {
          const keeps = sure[i] >= level;
          found.agree += student[i] === teacher[i]; found.kept += keeps;
          if (maps.truth[i] <= data.num_base || maps.truth[i] === IGNORE) continue;
          const good = data.mapping[teacher[i]] === maps.truth[i];
          found.novel++; found.student += data.mapping[student[i]] === maps.truth[i]; found.teacher += good;
          found.labelled += keeps; found.taught += keeps && good;
        }
        return found;
      };
      const curves = async () => {
        const everything = await Promise.all(data.pictures.map(open)), points = { student: [], teacher: [] };
        for (const E of data.epochs) {
          const sums = everything.map(({ maps }) => measure(maps, E, 0));
          const novel = sums.reduce((s, m) => s + m.novel, 0);
          if (!novel) return null; // nobody knows the truth of these images
          for (const who of ["student", "teacher"]) points[who].push(sums.reduce((s, m) => s + m[who], 0) / novel);
        }
        return points;
      };
      let drawn;
      return async () => {
        const { maps, ...opened } = await open(data.pictures[picture.value]), E = data.epochs[epoch.value], level = Math.round(Number(tau.value) * data.steps);
        const sure = maps[`sure_${E}`], taught = maps[`teacher_${E}`].map((label, i) => (sure[i] >= level ? label : IGNORE));
        const layer = { student: [maps[`student_${E}`], pseudo], teacher: [maps[`teacher_${E}`], pseudo], taught: [taught, pseudo], pseudo: [maps.pseudo, pseudo], truth: [maps.truth, truth] };
        board.show(opened, labelLayer(...layer[left.value]), labelLayer(...layer[right.value]), Number(divider.value), `${left.value} beside ${right.value}, ${when(epoch.value)}`);
        const m = measure(maps, E, level);
        panel.read([
          ["agree", "pixels on which both agree", percent(m.agree, m.all)],
          ["kept", "pixels that the teacher labels", percent(m.kept, m.all)],
          ["student", "novel pixels: the student is right", percent(m.student, m.novel)],
          ["teacher", "the teacher is right", percent(m.teacher, m.novel)],
          ["taught", "of those that it labels, right", percent(m.taught, m.labelled)],
        ]);
        const used = [left.value, right.value], entries = used.filter((u) => u !== "truth").flatMap((u) => present(data.pseudo_look, layer[u][0]));
        if (used.includes("truth")) entries.push(...present(data.truth_look, maps.truth));
        panel.legend([...new Map(entries.map((entry) => [entry[1], entry])).values()]);
        if (drawn === undefined) drawn = await curves();
        if (drawn) chart.replaceChildren(lineChart(drawn, Number(epoch.value), "novel pixels labelled rightly, all images shown here", data.epochs));
      };
    },

    predictions(data, body, redraw) {
      const board = new Board("prediction and truth"), panel = new Panel(redraw), look = table(data.look), models = Object.keys(data.scores);
      const picture = panel.pick("image", numbered(data.pictures));
      const model = panel.choice("model", "model", models.map((m) => [m, m]), models[models.length - 1]);
      const classes = data.look.labels.filter(([label]) => label < Object.keys(data.scores[models[0]].per_class).length);
      const label = panel.choice("class", "class", [["all", "all classes"], ...classes.map(([value, name]) => [value, name])], "all");
      const divider = panel.range("divider", "line", DIVIDER), opacity = panel.range("opacity", "opacity", OPACITY);
      body.append(board.node, panel.finish());
      const outcome = table({ labels: [[1, "right", "#0072b2", false], [2, "said, but is not", "#d55e00", true], [3, "missed", "#f0e442", false], [IGNORE, "ignored", "#ffffff", false]] });
      return async () => {
        const opened = await open(data.pictures[picture.value]), { truth } = opened.maps, said = opened.maps[model.value], chosen = label.value === "all" ? null : Number(label.value);
        const iou = (c) => {
          let both = 0, either = 0;
          for (let i = 0; i < truth.length; i++) {
            if (truth[i] === IGNORE) continue;
            both += truth[i] === c && said[i] === c; either += truth[i] === c || said[i] === c;
          }
          return [both, either];
        };
        if (chosen === null) {
          board.show(opened, labelLayer(said, look, Number(opacity.value)), labelLayer(truth, look, Number(opacity.value)), Number(divider.value), `${model.value} beside the truth`);
          const there = classes.filter(([c]) => c > 0 && iou(c)[1] > 0);
          panel.read([["miou", `novel mIoU of ${model.value}, all validation images`, share(data.scores[model.value].novel_miou)], ...there.map(([c, name]) => [`iou-${c}`, `IoU of ${name} on this image`, percent(...iou(c))])]);
          panel.legend(present(data.look, truth, said));
        } else {
          const kinds = Uint8Array.from(truth, (t, i) => (t === IGNORE ? IGNORE : t === chosen ? (said[i] === chosen ? 1 : 3) : said[i] === chosen ? 2 : 0));
          board.show(opened, labelLayer(kinds, outcome, Number(opacity.value)), labelLayer(truth, look, Number(opacity.value)), Number(divider.value), `${look.names[chosen]}: right, wrong and missed pixels`);
          panel.read([
            [`iou-${chosen}`, `IoU of ${look.names[chosen]} on this image`, percent(...iou(chosen))],
            ["iou-all", "on all validation images", share(data.scores[model.value].per_class[look.names[chosen]])],
          ]);
          panel.legend([["#0072b2", "right", false], ["#d55e00", "said, but is not", true], ["#f0e442", "missed", false], ...present(data.look, truth)]);
        }
      };
    },
  };

  function lineChart(curves, at, title, ticks) { // values 0..1 by step, two lines told apart by dashes as well
    const svg = (tag, attributes, ...children) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      node.append(...children);
      return node;
    };
    const [W, H, L, B] = [320, 120, 34, 22], n = ticks.length, x = (i) => L + (n > 1 ? (i / (n - 1)) * (W - L - 70) : 0), values = Object.values(curves).flat();
    const low = Math.max(0, Math.min(...values) - 0.05), high = Math.min(1, Math.max(...values) + 0.05), y = (v) => H - B - ((v - low) / (high - low || 1)) * (H - B - 14);
    const text = (px, py, words, anchor = "middle") => svg("text", { x: px, y: py, "text-anchor": anchor, "font-size": 10, fill: "currentColor" }, words);
    const node = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}, by epoch: ${Object.entries(curves).map(([who, v]) => `${who} ${v.map((p) => Math.round(100 * p)).join(", ")} percent`).join("; ")}` });
    node.append(svg("line", { x1: x(at), x2: x(at), y1: 14, y2: H - B, stroke: "currentColor", "stroke-opacity": 0.35, "stroke-width": 2 }), text(0, 9, title, "start"));
    for (const v of [low, high]) node.append(text(L - 4, y(v) + 3, `${Math.round(100 * v)} %`, "end"));
    Object.entries(curves).forEach(([who, points], k) => {
      const path = points.map((p, i) => `${i ? "L" : "M"}${x(i)} ${y(p)}`).join("");
      node.append(svg("path", { d: path, fill: "none", stroke: k ? "var(--good)" : "var(--bad)", "stroke-width": 2, "stroke-dasharray": k ? "none" : "5 3" }));
    });
    const ends = Object.entries(curves).map(([who, points], k) => [who, y(points[n - 1]), k]).sort((a, b) => a[1] - b[1]);
    ends.forEach(([who, py, k], i) => {
      const label = text(x(n - 1) + 6, i && py - ends[i - 1][1] < 11 ? ends[i - 1][1] + 14 : py + 3, who, "start");
      label.setAttribute("fill", k ? "var(--good)" : "var(--bad)");
      node.append(label);
    });
    ticks.forEach((tick, i) => node.append(text(x(i), H - 8, i === n - 1 ? "end" : String(tick))));
    return node;
  }

  window.ncdssExplore = async (root) => {
    const data = JSON.parse(root.querySelector('script[type="application/json"]').textContent), body = h("div", { class: "ncdss-body" });
    let draw = null, waiting = false, running = Promise.resolve();
    const redraw = () => { // once a frame, however many events there were; drawings do not overtake each other
      if (waiting || !draw) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; running = running.then(draw); });
    };
    draw = kinds[root.dataset.kind](data, body, redraw);
    root.querySelector(".ncdss-still").replaceWith(body);
    await draw();
    root.dataset.ready = "true";
  };
})();
