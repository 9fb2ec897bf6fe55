(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const text = byId("text");
  const spans = [...text.children];
  const base = spans.map((span) => span.className.split(" ").filter((name) => name === "t" || name === "nl").join(" "));
  const numberOf = new Map(spans.map((span, token) => [span, token]));
  const state = { mode: "expert", layer: 0, only: null, token: 0 };
  const layer = () => data.layers[state.layer];
  const percent = (part, whole) => `${((100 * part) / (whole || 1)).toFixed(1)} %`;
  const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

  function element(tag, className, ...content) {
    const made = document.createElement(tag);
    made.className = className;
    made.append(...content);
    return made;
  }

  // Modes: the class of a token, and for amounts the name of each level.

  function classByExpert(token) {
    const experts = layer().experts[token];
    if (state.only === null) return experts.length ? `e${experts[0]}` : "none";
    const rank = experts.indexOf(state.only);
    return rank < 0 ? "dim" : rank === 0 ? `e${state.only}` : `e${state.only} second`;
  }

  const most = data.layers.reduce((a, one) => one.experts.reduce((b, experts) => Math.max(b, experts.length), a), 1);
  const levelOfCount = (number) =>
    most <= data.levels ? Math.round(((number - 1) * (data.levels - 1)) / Math.max(most - 1, 1)) : Math.floor(((number - 1) * data.levels) / most);
  const counts = { none: "no expert", names: [] };
  for (let number = 1; number <= most; number++) {
    const level = levelOfCount(number);
    const first = counts.names[level] ? counts.names[level].first : number;
    counts.names[level] = { first, name: first === number ? count(number, "expert") : `${first} to ${number} experts` };
  }
  counts.classOf = (token) => {
    const number = layer().experts[token].length;
    return number ? `s${levelOfCount(number)}` : "none";
  };

  const edges = [0.5, 1, 2, 4, 6, 8];
  const losses = {
    none: "no token before it",
    names: [...edges, Infinity].map((edge, level) => ({
      name: edge === Infinity ? `${edges[level - 1]} nats or more` : `${level ? edges[level - 1] : 0} to ${edge} nats`,
    })),
    classOf: (token) => {
      const loss = data.losses[token];
      if (loss === null) return "none";
      const level = edges.findIndex((edge) => loss < edge);
      return `s${level < 0 ? edges.length : level}`;
    },
  };
  const modes = {
    expert: { title: "strongest expert", classOf: classByExpert },
    count: { title: "number of active experts", classOf: counts.classOf, scale: counts },
    loss: { title: "loss", classOf: losses.classOf, scale: losses },
  };

  // What stands around the text.

  function showExperts() {
    const { served, unserved } = layer();
    for (const key of byId("keys").querySelectorAll("[data-expert]")) {
      const number = key.dataset.expert === "none" ? unserved : served[Number(key.dataset.expert)];
      key.querySelector(".share").textContent = percent(number, spans.length);
      const bar = key.querySelector("[data-part]");
      if (bar) bar.setAttribute("width", `${(100 * number) / spans.length}%`);
      if (key.matches("button")) key.setAttribute("aria-pressed", String(Number(key.dataset.expert) === state.only));
    }
  }

  function showScale(scale, classes) {
    const tally = (name) => classes.reduce((sum, one) => sum + (one === name), 0);
    const entries = scale.names.map(({ name }, level) => [`s${level}`, name]).filter((entry) => entry);
    const rows = [["none", scale.none], ...entries].map(([name, words]) => {
      const key = element("span", "key", element("span", `chip ${name}`, "abc"), element("span", "", words));
      key.append(element("span", "share", percent(tally(name), spans.length)));
      return element("li", "", key);
    });
    byId("scale").replaceChildren(...rows);
  }

  function showCards() {
    const { served, strongest, frequent } = layer();
    const cards = served.map((number, expert) => {
      const words = number ? ` ${count(number, "token")}, strongest for ${strongest[expert]}` : " no token of this text";
      const rows = frequent[expert].map(([first, times, of]) => {
        const share = element("span", "count", `${times} of ${of} (${Math.round((100 * times) / of)} %)`);
        return element("li", "", element("code", "", data.labels[first]), share);
      });
      return element("li", "", element("h3", "", element("span", `chip e${expert}`, String(expert)), words), element("ol", "", ...rows));
    });
    byId("cards").replaceChildren(...cards);
  }

  function update(newLayer) {
    const mode = modes[state.mode];
    const classes = spans.map((_, token) => mode.classOf(token));
    spans.forEach((span, token) => {
      span.className = `${base[token]} ${classes[token]}`;
    });
    byId("mode").value = state.mode;
    byId("layer").value = String(state.layer);
    byId("by-expert").hidden = Boolean(mode.scale);
    byId("by-amount").hidden = !mode.scale;
    byId("amount").textContent = `Tokens by ${mode.title}`;
    if (mode.scale) showScale(mode.scale, classes);
    else showExperts();
    document.querySelectorAll("[data-layer]").forEach((row) => {
      row.setAttribute("aria-pressed", String(Number(row.dataset.layer) === state.layer));
    });
    if (newLayer) showCards();
    const shown = state.only === null ? `coloured by ${mode.title}` : `tokens of expert ${state.only}; striped where another is stronger`;
    byId("status").textContent = `Layer ${state.layer + 1} of ${data.layers.length}: ${layer().name}; ${shown}`;
    if (!byId("tip").hidden) showTip(state.tipped);
  }

  function choose(change) {
    const before = state.layer;
    Object.assign(state, change);
    if (state.mode !== "expert") state.only = null;
    state.layer = Math.min(Math.max(state.layer, 0), data.layers.length - 1);
    update(state.layer !== before);
  }

  // The tooltip.

  function showTip(token) {
    const tip = byId("tip");
    const loss = data.losses[token];
    const { experts, weights } = layer();
    const said = loss === null ? "no loss: no token before it" : `loss ${loss.toFixed(2)} nats (probability ${Number((100 * Math.exp(-loss)).toPrecision(2))} %)`;
    const rows = experts[token].map((expert, rank) =>
      element("li", "", element("span", `chip e${expert}`, String(expert)), `weight ${weights[token][rank].toPrecision(3)}`)
    );
    tip.replaceChildren(
      element("p", "", element("code", "", data.labels[token])),
      element("p", "count", `token ${token + 1} of ${spans.length}`),
      element("p", "", said),
      rows.length ? element("ol", "", ...rows.slice(0, 12)) : element("p", "", "no active expert in this layer")
    );
    if (rows.length > 12) tip.append(element("p", "count", `and ${rows.length - 12} more`));
    tip.hidden = false;
    state.tipped = token;
    const at = spans[token].getClientRects()[0] || spans[token].getBoundingClientRect();
    const below = at.bottom + 8 + tip.offsetHeight <= window.innerHeight;
    tip.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, below ? at.bottom + 8 : at.top - 8 - tip.offsetHeight)}px`;
  }

  function hideTip() {
    byId("tip").hidden = true;
  }

  function focusToken(token) {
    spans[state.token].tabIndex = -1;
    state.token = Math.min(Math.max(token, 0), spans.length - 1);
    spans[state.token].tabIndex = 0;
    spans[state.token].focus();
  }

  text.addEventListener("pointerover", (event) => numberOf.has(event.target) && showTip(numberOf.get(event.target)));
  text.addEventListener("pointerleave", hideTip);
  text.addEventListener("focusin", (event) => numberOf.has(event.target) && showTip(numberOf.get(event.target)));
  text.addEventListener("focusout", hideTip);
  text.addEventListener("click", (event) => numberOf.has(event.target) && focusToken(numberOf.get(event.target)));
  window.addEventListener("scroll", hideTip, { passive: true });

  // Controls and keys.

  const stepped = { ArrowRight: 1, ArrowLeft: -1 };
  text.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || !numberOf.has(event.target)) return;
    const token = numberOf.get(event.target);
    if (event.key in stepped) focusToken(token + stepped[event.key]);
    else if (event.key === "Home") focusToken(0);
    else if (event.key === "End") focusToken(spans.length - 1);
    else if (event.key === "ArrowUp") choose({ layer: state.layer - 1 });
    else if (event.key === "ArrowDown") choose({ layer: state.layer + 1 });
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      hideTip();
      if (state.only !== null) choose({ only: null });
    }
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("select, input")) return;
    if (event.key in stepped) {
      choose({ layer: state.layer + stepped[event.key] });
      event.preventDefault();
    }
  });
  byId("mode").addEventListener("change", (event) => choose({ mode: event.target.value }));
  byId("layer").addEventListener("change", (event) => choose({ layer: Number(event.target.value) }));
  byId("previous").addEventListener("click", () => choose({ layer: state.layer - 1 }));
  byId("next").addEventListener("click", () => choose({ layer: state.layer + 1 }));
  byId("numbers").addEventListener("change", (event) => text.classList.toggle("numbered", event.target.checked));
  byId("keys").addEventListener("click", (event) => {
    const key = event.target.closest("button");
    if (!key) return;
    const expert = Number(key.dataset.expert);
    choose({ only: state.only === expert ? null : expert });
  });
  byId("loads").addEventListener("click", (event) => {
    const row = event.target.closest("[data-layer]");
    if (row) choose({ layer: Number(row.dataset.layer) });
  });

  spans.forEach((span, token) => {
    span.tabIndex = token ? -1 : 0;
  });
  text.classList.add("ready");
  update(true);
})();
