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

// On paper nothing can be unfolded, and the background is white.
let themeOnScreen;
window.addEventListener("beforeprint", () => {
  document.querySelectorAll(".bd-article details").forEach((part) => part.setAttribute("open", ""));
  themeOnScreen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => (document.documentElement.dataset.theme = themeOnScreen));
