"use strict";
(() => {
  document.querySelectorAll("[data-needs-script]").forEach((part) => {
    part.hidden = false;
  });
  const theme = document.getElementById("theme");
  if (theme) theme.addEventListener("change", () => (document.documentElement.dataset.theme = theme.value));
})();
