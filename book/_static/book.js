// A picture of a notebook is small on a phone: a link on it opens it alone, where it can be enlarged. "Back" returns.
document.addEventListener("DOMContentLoaded", () => {
  for (const image of document.querySelectorAll(".bd-article .cell_output figure > img, .bd-article .cell_output > .output img:not(.ncdss-explorer img)")) {
    if (image.closest("a, .ncdss-explorer")) continue;
    const link = document.createElement("a");
    link.href = image.src;
    link.title = "Open the picture alone";
    image.replaceWith(link);
    link.append(image);
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
  // What scrolls sideways must be reachable by the keyboard.
  const reach = () => {
    for (const part of document.querySelectorAll(".bd-article table, .bd-article pre, .bd-article .math")) {
      if (part.scrollWidth > part.clientWidth) part.setAttribute("tabindex", "0");
      else part.removeAttribute("tabindex");
    }
  };
  reach();
  window.addEventListener("resize", reach);
  window.addEventListener("load", reach);
});

// On paper nothing can be unfolded, and the background is white.
let themeOnScreen;
window.addEventListener("beforeprint", () => {
  document.querySelectorAll(".bd-article details").forEach((part) => part.setAttribute("open", ""));
  themeOnScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => (document.documentElement.dataset.theme = themeOnScreen));
