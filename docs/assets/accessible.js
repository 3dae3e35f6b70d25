// Names the search and the buttons of code for screen readers, and lets the keyboard scroll wide tables.
window.addEventListener("load", () => setTimeout(() => {
  document.querySelectorAll(".md-search[role=dialog]").forEach((box) => box.setAttribute("aria-label", "Search"));
  document.querySelectorAll(".md-code__nav").forEach((box, k) => box.setAttribute("aria-label", `Code ${k + 1}`));
  document.querySelectorAll(".md-typeset__scrollwrap").forEach((box) => box.setAttribute("tabindex", "0"));
}, 100));
