(() => {
  const byId = (id) => document.getElementById(id);
  const maps = byId("maps");
  if (!maps) return;
  const data = JSON.parse(byId("maps-data").textContent);
  const pictures = [...byId("maps-pictures").children];
  const overlays = pictures.map((picture) => picture.querySelector(".overlay"));
  const state = { layer: 0, mode: "expert", expert: 0, at: null };
  const SVG = "http://www.w3.org/2000/svg";
  const LEAST_CELL = 13; // pixels of a patch that a number fits into
  const layer = () => data.layers[state.layer];
  const percent = (share) => `${(100 * share).toFixed(1)} %`;
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
  const short = (weight, digits = layer().steps > 255 ? 3 : 2) => String(Number(weight.toPrecision(digits)));

  function element(tag, className, ...content) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...content);
    return made;
  }

  function drawn(tag, attributes) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  // Weights: whole numbers, 0 where inactive, unpacked when a layer is first looked at.

  async function unpack(one) {
    if (one.values) return;
    const bytes = Uint8Array.from(atob(one.weights), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const buffer = await new Response(stream).arrayBuffer();
    one.values = one.steps > 255 ? new Uint16Array(buffer) : new Uint8Array(buffer);
    const [prefix, rows, columns] = one.grid;
    one.tokens = prefix + rows * columns;
    one.heaviest = new Array(one.experts).fill(0);
    one.lightest = new Array(one.experts).fill(one.steps);
    one.most = 1;
    for (let start = 0; start < one.values.length; start += one.experts) {
      let active = 0;
      for (let expert = 0; expert < one.experts; expert++) {
        const value = one.values[start + expert];
        if (!value) continue;
        active++;
        one.heaviest[expert] = Math.max(one.heaviest[expert], value);
        one.lightest[expert] = Math.min(one.lightest[expert], value);
      }
      if (active > one.most) one.most = active;
    }
  }

  const startOf = (image, token) => (image * layer().tokens + token) * layer().experts;
  const weightOf = (value) => ((value - 1) / (layer().steps - 1)) * layer().largest;

  function strongest(start) {
    const { values, experts } = layer();
    let best = 0;
    for (let expert = 1; expert < experts; expert++) if (values[start + expert] > values[start + best]) best = expert;
    return values[start + best] ? best : -1;
  }

  function active(start) {
    const { values, experts } = layer();
    const found = [];
    for (let expert = 0; expert < experts; expert++) if (values[start + expert]) found.push([expert, values[start + expert]]);
    return found.sort((a, b) => b[1] - a[1]);
  }

  // Modes: what a patch is shown as. kind: −1 for nothing, else a number; fill: its class; say: its number in words.

  function levelOfCount(number) {
    const { most } = layer();
    if (most <= data.levels) return Math.round(((number - 1) * (data.levels - 1)) / Math.max(most - 1, 1));
    return Math.floor(((number - 1) * data.levels) / most);
  }

  // Levels of weight run from the expert's lightest to its heaviest patch.

  function levelOfWeight(value) {
    const [least, most] = [layer().lightest[state.expert], layer().heaviest[state.expert]];
    return Math.min(Math.floor((data.levels * (value - least)) / Math.max(most - least, 1)), data.levels - 1);
  }

  const modes = {
    expert: {
      says: () => "each patch in the colour of its strongest expert",
      kind: strongest,
      fill: (expert) => `f${expert}`,
      say: (start) => String(strongest(start)),
    },
    count: {
      says: () => "each patch by its number of active experts",
      kind: (start) => (active(start).length ? levelOfCount(active(start).length) : -1),
      fill: (level) => `s${level}`,
      say: (start) => String(active(start).length),
      title: () => "Patches by number of experts",
      none: "no expert",
      names() {
        const names = [];
        for (let number = 1; number <= layer().most; number++) {
          const level = levelOfCount(number);
          if (names[level]) names[level].last = number;
          else names[level] = { first: number, last: number };
        }
        return names.map(({ first, last }) => (first === last ? count(first, "expert") : `${first} to ${last} experts`));
      },
    },
    weight: {
      says: () => `the weight of expert ${state.expert} in each patch`,
      kind: (start) => (layer().values[start + state.expert] ? levelOfWeight(layer().values[start + state.expert]) : -1),
      fill: (level) => `s${level}`,
      say(start) {
        const weight = weightOf(layer().values[start + state.expert]);
        return weight < 0.995 ? weight.toFixed(2).slice(1) : short(weight, 2);
      },
      title: () => `Patches by weight of expert ${state.expert}`,
      none: "not active",
      names() {
        const [least, most] = [layer().lightest[state.expert], layer().heaviest[state.expert]];
        if (!most) return [];
        const edge = (level) => short(weightOf(least + ((most - least) * level) / data.levels));
        return Array.from({ length: data.levels }, (_, level) => `≥ ${edge(level)}`);
      },
    },
  };

  // What is drawn over a picture: for each kind one path around its patches.

  function draw(image, tally) {
    const [prefix, rows, columns] = layer().grid;
    const mode = modes[state.mode];
    const paths = new Map();
    for (let row = 0; row < rows; row++) {
      let begin = 0;
      let before = null;
      for (let column = 0; column <= columns; column++) {
        const kind = column < columns ? mode.kind(startOf(image, prefix + row * columns + column)) : null;
        if (column < columns) tally.set(kind, (tally.get(kind) || 0) + 1);
        if (column && kind !== before) {
          if (before >= 0) paths.set(before, `${paths.get(before) || ""}M${begin} ${row}h${column - begin}v1h-${column - begin}z`);
          begin = column;
        }
        before = kind;
      }
    }
    const overlay = overlays[image];
    overlay.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
    overlay.querySelector(".cells").replaceChildren(...[...paths].map(([kind, d]) => drawn("path", { class: mode.fill(kind), d })));
    const before = pictures[image].querySelector(".before");
    before.replaceChildren(...Array.from({ length: prefix }, (_, token) => chips(startOf(image, token))));
  }

  function chips(start) {
    const found = active(start);
    const shown = found.slice(0, 4).map(([expert]) => element("span", `chip e${expert}`, String(expert)));
    return element("span", "token", ...(shown.length ? shown : [element("span", "chip none", "–")]), found.length > 4 ? "…" : "");
  }

  const fits = () => overlays[0].clientWidth / layer().grid[2] >= LEAST_CELL;

  function showNumbers() {
    const [prefix, rows, columns] = layer().grid;
    byId("maps-numbers").disabled = !fits();
    const wanted = byId("maps-numbers").checked && fits();
    overlays.forEach((overlay, image) => {
      const texts = [];
      for (let patch = 0; wanted && patch < rows * columns; patch++) {
        const start = startOf(image, prefix + patch);
        if (modes[state.mode].kind(start) < 0) continue;
        const text = drawn("text", { x: (patch % columns) + 0.5, y: Math.floor(patch / columns) + 0.5 });
        text.textContent = modes[state.mode].say(start);
        texts.push(text);
      }
      overlay.querySelector(".numbers").replaceChildren(...texts);
      overlay.classList.toggle("long", state.mode === "weight");
    });
  }

  // What stands around the pictures.

  function makeLegend() {
    const { experts } = layer();
    const keys = byId("maps-keys");
    const model = keys.querySelector("button").parentElement;
    const none = keys.lastElementChild;
    const rows = Array.from({ length: experts }, (_, expert) => {
      const row = model.cloneNode(true);
      const chip = row.querySelector(".chip");
      chip.className = `chip e${expert}`;
      chip.textContent = expert;
      row.querySelector("button").dataset.expert = expert;
      row.querySelector("[data-served]").setAttribute("class", `pale f${expert}`);
      row.querySelector("[data-strongest]").setAttribute("class", `f${expert}`);
      return row;
    });
    keys.replaceChildren(...rows, none);
    byId("maps-expert").replaceChildren(...rows.map((_, expert) => new Option(String(expert), String(expert))));
    state.expert = Math.min(state.expert, experts - 1);
  }

  function showLegend() {
    const { served, strongest: wins, unserved } = layer();
    for (const key of byId("maps-keys").querySelectorAll("[data-expert]")) {
      const expert = Number(key.dataset.expert);
      const share = key.dataset.expert === "none" ? unserved : wins[expert];
      key.querySelector(".share").textContent = percent(share);
      if (!key.matches("button")) continue;
      key.title = `strongest for ${percent(share)}, active for ${percent(served[expert])} of the patches`;
      key.querySelector("[data-served]").setAttribute("width", percent(served[expert]).replace(" ", ""));
      key.querySelector("[data-strongest]").setAttribute("width", percent(share).replace(" ", ""));
      key.setAttribute("aria-pressed", String(state.mode === "weight" && expert === state.expert));
    }
  }

  function showScale(tally) {
    const mode = modes[state.mode];
    byId("maps-scale").hidden = !mode.names;
    if (!mode.names) return;
    byId("maps-amount").textContent = mode.title();
    const patches = [...tally.values()].reduce((sum, number) => sum + number, 0);
    const row = (kind, chip, words) => {
      const key = element("span", "key", element("span", `chip ${chip}`, kind < 0 ? "–" : "\u00a0"), element("span", "", words));
      key.append(element("span", "share", percent((tally.get(kind) || 0) / patches)));
      return element("li", "", key);
    };
    const rows = mode.names().map((name, level) => row(level, `s${level}`, name));
    byId("maps-levels").replaceChildren(...rows.filter(Boolean), row(-1, "none", mode.none));
  }

  const favourites = byId("maps-favourites");
  const drawnFirst = favourites ? [...favourites.children] : [];

  function showFavourites() {
    if (!favourites) return;
    const { favourites: rows, size, frame } = layer();
    const made = rows.map((row, expert) => {
      const shown = row.map(([href, weight]) => {
        const title = drawn("title", {});
        title.textContent = `weight ${weight}`;
        const svg = drawn("svg", { class: "favourite", viewBox: `0 0 ${size[1]} ${size[0]}`, role: "img", "aria-label": `weight ${weight}` });
        svg.append(title, drawn("image", { href, width: size[1], height: size[0] }));
        if (frame) svg.append(drawn("rect", { class: "frame", x: frame[0], y: frame[1], width: frame[2], height: frame[3] }));
        return svg;
      });
      const inside = document.createElement("div");
      inside.append(...(shown.length ? shown : [element("span", "count", "no patch")]));
      return element("li", "", element("span", `chip e${expert}`, String(expert)), inside);
    });
    favourites.replaceChildren(...(state.layer ? made : drawnFirst));
  }

  async function choose(change) {
    const before = state.layer;
    Object.assign(state, change);
    state.layer = Math.min(Math.max(state.layer, 0), data.layers.length - 1);
    await unpack(layer());
    if (state.layer !== before || !byId("maps-expert").options.length) {
      makeLegend();
      showFavourites();
    }
    const tally = new Map();
    overlays.forEach((_, image) => draw(image, tally));
    showNumbers();
    showLegend();
    showScale(tally);
    byId("maps-layer").value = String(state.layer);
    byId("maps-mode").value = state.mode;
    byId("maps-expert").value = String(state.expert);
    byId("maps-one").hidden = state.mode !== "weight";
    byId("maps-previous").disabled = state.layer === 0;
    byId("maps-next").disabled = state.layer === data.layers.length - 1;
    byId("maps-status").textContent = `Layer ${state.layer + 1} of ${data.layers.length}: ${layer().name}; ${modes[state.mode].says()}`;
    hideTip();
  }

  // The patch that is looked at.

  function hideTip() {
    byId("maps-tip").hidden = true;
    maps.querySelectorAll(".here").forEach((mark) => mark.remove());
    state.at = null;
  }

  function showTip(image, row, column) {
    const [prefix, , columns] = layer().grid;
    hideTip();
    state.at = { image, row, column };
    const overlay = overlays[image];
    const box = { class: "here", x: column, y: row, width: 1, height: 1 };
    overlay.append(drawn("rect", box), drawn("rect", box));
    const found = active(startOf(image, prefix + row * columns + column));
    const rows = found.slice(0, 12).map(([expert, value]) =>
      element("li", "", element("span", `chip e${expert}`, String(expert)), `weight ${short(weightOf(value))}`)
    );
    const tip = byId("maps-tip");
    tip.replaceChildren(
      element("p", "count", `row ${row + 1}, column ${column + 1}`),
      rows.length ? element("ol", "", ...rows) : element("p", "", "no active expert")
    );
    if (found.length > 12) tip.append(element("p", "count", `and ${found.length - 12} more`));
    tip.hidden = false;
    const at = overlay.lastElementChild.getBoundingClientRect();
    const below = at.bottom + 8 + tip.offsetHeight <= window.innerHeight;
    tip.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - 8 - tip.offsetHeight)}px`;
  }

  function point(event) {
    const overlay = event.target.closest(".overlay");
    if (!overlay || !layer().values) return;
    const [, rows, columns] = layer().grid;
    const box = overlay.getBoundingClientRect();
    const column = Math.min(Math.max(Math.floor(((event.clientX - box.left) / box.width) * columns), 0), columns - 1);
    const row = Math.min(Math.max(Math.floor(((event.clientY - box.top) / box.height) * rows), 0), rows - 1);
    const image = overlays.indexOf(overlay);
    const { at } = state;
    if (!at || at.image !== image || at.row !== row || at.column !== column) showTip(image, row, column);
  }

  const area = byId("maps-pictures");
  area.addEventListener("pointermove", point);
  area.addEventListener("pointerdown", point);
  area.addEventListener("pointerout", (event) => {
    const left = event.target.closest(".overlay");
    if (event.pointerType === "mouse" && left && !left.contains(event.relatedTarget)) hideTip();
  });
  window.addEventListener("scroll", hideTip, { passive: true });

  const stepped = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  area.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") hideTip();
    const image = overlays.indexOf(event.target.closest(".overlay"));
    if (image < 0 || !(event.key in stepped)) return;
    const [, rows, columns] = layer().grid;
    const { row, column } = state.at && state.at.image === image ? state.at : { row: -1, column: -1 };
    const [down, right] = row < 0 ? [1, 1] : stepped[event.key];
    showTip(image, Math.min(Math.max(row + down, 0), rows - 1), Math.min(Math.max(column + right, 0), columns - 1));
    event.preventDefault();
  });
  area.addEventListener("focusout", hideTip);

  // Controls.

  byId("maps-layer").addEventListener("change", (event) => choose({ layer: Number(event.target.value) }));
  byId("maps-previous").addEventListener("click", () => choose({ layer: state.layer - 1 }));
  byId("maps-next").addEventListener("click", () => choose({ layer: state.layer + 1 }));
  byId("maps-mode").addEventListener("change", (event) => choose({ mode: event.target.value }));
  byId("maps-expert").addEventListener("change", (event) => choose({ expert: Number(event.target.value) }));
  byId("maps-numbers").addEventListener("change", showNumbers);
  byId("maps-size").addEventListener("change", (event) => {
    area.dataset.size = event.target.value;
    showNumbers();
  });
  byId("maps-opacity").addEventListener("input", (event) => {
    const opacity = Number(event.target.value) / 100;
    maps.style.setProperty("--opacity", opacity);
    maps.style.setProperty("--grey", Math.min(1, 2 * opacity));
  });
  byId("maps-keys").addEventListener("click", (event) => {
    const key = event.target.closest("button");
    if (!key) return;
    const expert = Number(key.dataset.expert);
    const again = state.mode === "weight" && state.expert === expert;
    choose(again ? { mode: "expert" } : { mode: "weight", expert });
  });

  overlays.forEach((overlay) => {
    overlay.tabIndex = 0;
  });
  choose({});
})();
