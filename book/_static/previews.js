// A term or a citation says what it is, in a box beside the link: on hover and on focus, until Escape, and it stays while the pointer is on it.
document.addEventListener("DOMContentLoaded", () => {
  const links = document.querySelectorAll(".bd-article a.preview[title], .bd-article a.reference.internal[title][href*='references.html#']");
  const box = document.createElement("div");
  box.className = "preview-box";
  box.id = "preview-box";
  box.setAttribute("role", "tooltip");
  box.hidden = true;
  document.body.append(box);
  let shown = null, timer = null;

  const hide = () => {
    clearTimeout(timer);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    box.hidden = true;
  };
  const show = (link) => {
    hide();
    shown = link;
    box.textContent = link.dataset.preview;
    link.setAttribute("aria-describedby", box.id);
    box.hidden = false;
    const at = link.getClientRects()[0], room = document.documentElement.clientWidth - box.offsetWidth - 8;
    const above = at.bottom + box.offsetHeight + 8 > innerHeight && at.top > box.offsetHeight + 8;
    box.style.left = `${scrollX + Math.max(8, Math.min(at.left, room))}px`;
    box.style.top = `${scrollY + (above ? at.top - box.offsetHeight - 4 : at.bottom + 4)}px`;
  };
  const later = (act, wait) => {
    clearTimeout(timer);
    timer = setTimeout(act, wait);
  };

  for (const link of links) {
    link.dataset.preview = link.title;
    link.removeAttribute("title"); // the browser's own box would stand over this one
    link.addEventListener("mouseenter", () => later(() => show(link), 250));
    link.addEventListener("mouseleave", () => later(hide, 200));
    link.addEventListener("focus", () => show(link));
    link.addEventListener("blur", hide);
  }
  box.addEventListener("mouseenter", () => clearTimeout(timer));
  box.addEventListener("mouseleave", () => later(hide, 200));
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && shown) hide(); });
});
