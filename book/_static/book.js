// Every picture opens large: fitted to the window, at a click as large as it is, with its caption, and the arrow keys lead to the others.
document.addEventListener("DOMContentLoaded", () => {
  const where = ".bd-article figure img, .bd-article .cell_output img, .bd-article .output img";
  const pictures = [...document.querySelectorAll(where)].filter((image) => !image.closest("a:not(.image-reference), .ncdss-explorer, dialog"));
  const make = (tag, text, name, act) => {
    const node = document.createElement(tag);
    node.textContent = text;
    if (name) node.setAttribute("aria-label", name);
    if (act) node.addEventListener("click", act);
    return node;
  };
  const captionOf = (image) => {
    const caption = image.closest("figure")?.querySelector("figcaption")?.cloneNode(true);
    caption?.querySelectorAll(".headerlink").forEach((link) => link.remove());
    return caption?.textContent.trim() ?? image.alt;
  };
  const open = (start) => {
    const shown = pictures.filter((image) => image.offsetParent), large = make("img"), frame = make("div"), caption = make("p"), count = make("span");
    let at = shown.indexOf(start);
    const draw = () => {
      [large.src, large.alt, caption.textContent] = [shown[at].src, shown[at].alt, captionOf(shown[at])];
      count.textContent = `${at + 1} of ${shown.length}`;
      frame.className = /only-(light|dark)/.test(shown[at].className) ? "themed" : "";
    };
    const step = (by) => { at = (at + by + shown.length) % shown.length; draw(); };
    const dialog = make("dialog"), bar = make("nav");
    dialog.className = "picture";
    dialog.setAttribute("aria-label", "picture, enlarged");
    bar.append(make("button", "‹", "previous picture", () => step(-1)), count, make("button", "›", "next picture", () => step(1)), make("button", "×", "close", () => dialog.close()));
    frame.tabIndex = 0;
    frame.append(large);
    large.addEventListener("click", () => frame.classList.toggle("actual"));
    frame.addEventListener("click", (event) => { if (event.target === frame) dialog.close(); });
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
      if (event.key === "Escape") dialog.close();
    });
    dialog.addEventListener("close", () => { dialog.remove(); start.closest("button").focus(); });
    dialog.append(bar, frame, caption);
    document.body.append(dialog);
    draw();
    dialog.showModal();
  };
  for (const image of pictures) {
    const button = make("button", "", `Enlarge: ${image.alt}`, () => open(image));
    button.type = "button";
    button.className = `enlarge ${[...image.classList].filter((name) => name.startsWith("only-")).join(" ")}`;
    (image.closest("a") ?? image).replaceWith(button); // Sphinx makes a picture with a width a link to its file
    button.append(image);
  }
});

// What the theme leaves to be wished for by those who hear the page or have no mouse.
document.addEventListener("DOMContentLoaded", () => {
  // A name that differs from the words that stand there: the words are the better name.
  for (const node of document.querySelectorAll(".search-button-field, details.hide > summary, .tag_hide-cell summary, .tag_hide-input summary")) {
    node.removeAttribute("aria-label");
  }
  // Symbols of an icon font are no words, where a button has a name: not as titles of pictures either, which a script of the theme makes of them.
  const hideSymbols = () => {
    for (const icon of document.querySelectorAll("button[aria-label] i, button[aria-label] svg, .toctree-toggle i, .toctree-toggle svg")) {
      icon.setAttribute("aria-hidden", "true");
      icon.removeAttribute("title");
      icon.querySelector("title")?.remove();
    }
  };
  hideSymbols();
  window.addEventListener("load", hideSymbols);
  for (const toggle of document.querySelectorAll(".has-children > details > summary")) {
    const chapter = toggle.closest(".has-children").querySelector("a").textContent.trim();
    toggle.setAttribute("aria-label", `Pages of ${chapter}`);
  }
  for (const list of document.querySelectorAll(".bd-article > ul > ul")) list.previousElementSibling.append(list); // Sphinx's list of sources
  for (const entry of document.querySelectorAll("[role=doc-biblioentry]")) entry.setAttribute("role", "listitem"); // the role is deprecated
  // Long names of settings break after a dot or an underscore, so that what they mean is not pushed out of the column.
  for (const name of document.querySelectorAll(".bd-article table.dataframe th[scope=row]:not(:has(*))")) {
    name.innerHTML = name.innerHTML.replace(/[._](?=[a-z])/g, "$&<wbr>");
  }
  // What scrolls sideways must be reachable by the keyboard.
  const reach = () => {
    for (const part of document.querySelectorAll(".bd-article table, .bd-article pre, .bd-article .math, .bd-article mjx-container")) {
      if (part.scrollWidth > part.clientWidth) part.setAttribute("tabindex", "0");
      else part.removeAttribute("tabindex");
    }
  };
  reach();
  window.addEventListener("resize", reach);
  window.addEventListener("load", () => {
    reach();
    window.MathJax?.startup?.promise.then(reach);
  });
});

// On paper nothing can be unfolded, and the background is white.
let themeOnScreen;
window.addEventListener("beforeprint", () => {
  document.querySelectorAll(".bd-article details").forEach((part) => part.setAttribute("open", ""));
  themeOnScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => (document.documentElement.dataset.theme = themeOnScreen));
