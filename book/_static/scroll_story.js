// The table stays, the text moves: the step in the middle of the window lights its cells.
document.addEventListener("DOMContentLoaded", () => {
  for (const story of document.querySelectorAll(".scroll-story")) {
    const table = story.querySelector("table"), steps = [...story.querySelectorAll(".scroll-step")];
    const heads = [...table.tHead.rows[0].cells], names = heads.map((cell) => cell.textContent.trim());
    const rows = [...table.tBodies[0].rows].map((row) => [...row.cells]);
    const ends = (range) => { const [first, last = first] = range.split("-").map(Number); return [first, last]; };
    const within = ([first, last], n) => n >= first && n <= last;

    const light = (step) => {
      steps.forEach((other) => other.classList.toggle("now", other === step));
      const ranges = step.dataset.cells.split(" ").map((text) => text.split(",").map(ends));
      rows.forEach((cells, r) => cells.forEach((cell, c) => {
        cell.classList.toggle("lit", ranges.some(([down, across]) => within(down, r + 1) && within(across, c)));
      }));
      const past = steps.slice(0, steps.indexOf(step) + 1).flatMap((one) => one.dataset.heads.split(" ").filter(Boolean));
      const called = Object.fromEntries(past.map((text) => text.split("=")));
      heads.forEach((cell, c) => { cell.textContent = called[c] ? `${names[c]} = ${called[c]}` : names[c]; });
    };
    story.classList.add("on");
    light(steps[0]);
    const middle = { rootMargin: "-60% 0px -38% 0px" }; // a thin band below the table
    const watch = new IntersectionObserver((seen) => seen.filter((one) => one.isIntersecting).forEach((one) => light(one.target)), middle);
    steps.forEach((step) => watch.observe(step));
  }
});
