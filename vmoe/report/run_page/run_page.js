"use strict";
(() => {
  const choice = document.getElementById("layer-of-figures");
  if (!choice) return;
  const figures = [...document.querySelectorAll(".by-layer > details")];
  const show = () => {
    for (const figure of figures) figure.open = choice.value === "" || figure.dataset.layer === choice.value;
    const maps = document.getElementById("maps-layer");
    const same = maps && [...maps.options].find((option) => option.textContent === choice.value);
    if (same) {
      maps.value = same.value;
      maps.dispatchEvent(new Event("change"));
    }
  };
  const step = (by) => {
    choice.selectedIndex = (choice.selectedIndex + by + choice.length) % choice.length;
    show();
  };
  choice.addEventListener("change", show);
  document.getElementById("layer-before").addEventListener("click", () => step(-1));
  document.getElementById("layer-after").addEventListener("click", () => step(1));
})();
