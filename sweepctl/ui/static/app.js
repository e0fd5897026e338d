// What happens in the browser? Figures are drawn, live parts are asked for, texts are copied.
// No state is kept here but the address: every view can be sent as a link.
"use strict";
(() => {
  const live = document.getElementById("live");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const seen = new WeakMap(); // element -> the ETag of what it shows

  // --- figures ---------------------------------------------------------------------------
  const config = {
    displaylogo: false, responsive: true, plotlyServerURL: "", showSendToCloud: false,
    modeBarButtonsToRemove: ["sendChartToCloud", "sendDataToCloud", "select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    toImageButtonOptions: { format: "svg" },
  };

  const isAxis = (name) => /^[xy]axis\d*$/.test(name);

  function axis(given, room) {
    const made = {
      gridcolor: css("--line"), zerolinecolor: css("--rule"), linecolor: css("--rule"), showline: true, ticks: "outside",
      tickcolor: css("--rule"), ticklen: 4, automargin: true, zeroline: false, ...given,
      title: { text: "", standoff: 10, font: { size: 13, color: css("--soft") }, ...(given.title || {}) },
    };
    if (made.tickvals && made.type === "log") { // as many of the model's ticks as there is room for
      const step = Math.ceil(made.tickvals.length / Math.max(2, Math.floor(room / 46)));
      made.tickvals = made.tickvals.filter((_, place) => place % step === 0);
      made.ticktext = made.ticktext.filter((_, place) => place % step === 0);
    } else if (made.type === "log") made.tickformat = "~g";
    return made;
  }

  // The figure as the page shows it: ink, soft and paper are colors of the page, and a row has as
  // many panels as there is room for.
  function themed(figure, element) {
    const given = figure.layout || {}, width = element.clientWidth, narrow = width < 620;
    const names = Object.keys(given).filter(isAxis), panels = names.length / 2;
    const columns = given.grid ? Math.max(1, Math.min(given.grid.columns, Math.floor(width / 300))) : 1;
    const rows = Math.ceil(panels / columns), grid = given.grid && { ...given.grid, rows, columns };
    element.style.height = rows > 1 ? `${350 * rows + 60}px` : "";
    const height = element.clientHeight / rows - 60;
    const band = (color) => color.replace(/[\d.]+(?=\))/, (opacity) => opacity * css("--band")); // pale areas drown on a dark page
    const colored = (part) => {
      if (Array.isArray(part) || part === null || typeof part !== "object") return part;
      return Object.fromEntries(Object.entries(part).map(([key, value]) => [key, key === "color" && ["ink", "soft", "paper"].includes(value) ? css(`--${value}`) : key === "fillcolor" ? band(value) : colored(value)]));
    };
    const axes = names.map((name) => [name, axis(given[name], name[0] === "x" ? width / columns - 70 : height * 1.6)]);
    const title = { size: 13, weight: 650, color: css("--ink") };
    const words = (given.annotations || []).map((one) => ({ font: one.name === "title" ? title : { size: 11.5, color: css("--soft") }, ...one }));
    const below = narrow || panels > 1;
    return {
      data: figure.data.map(colored),
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: "zoom",
        margin: { l: 56, r: 14, t: Math.max(10, ...words.map((one) => (one.yshift || -12) + 22)), b: 48 },
        font: { family: css("--sans"), size: 12.5, color: css("--soft") },
        hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--rule"), align: "left", font: { family: css("--sans"), size: 12.5, color: css("--ink") } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--ink") },
        ...given, ...Object.fromEntries(axes), annotations: words, ...(grid ? { grid } : {}),
        legend: below ? { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0, font: { size: 12 }, tracegroupgap: 0 } : { x: 1.01, y: 1, font: { size: 12 }, bgcolor: "rgba(0,0,0,0)", tracegroupgap: 0 },
      },
    };
  }

  // Ticks of the model where at least two are seen; someone who zooms in further gets round numbers.
  function ticked(element) {
    const changes = {};
    for (const [name, one] of Object.entries(element.layout).filter(([key, one]) => isAxis(key) && one.type === "log" && one.tickvals && one.range)) {
      const [low, high] = one.range.map((end) => 10 ** end);
      const mode = one.tickvals.filter((at) => at >= low && at <= high).length < 2 ? "auto" : "array";
      if ((one.tickmode || "array") !== mode) { changes[`${name}.tickmode`] = mode; changes[`${name}.tickformat`] = ".4~g"; }
    }
    if (Object.keys(changes).length) Plotly.relayout(element, changes);
  }

  // A zoom outlives the next drawing of the same figure: a range that is not the one that was given.
  const ranges = new WeakMap();
  function zoomed(element, layout) {
    const known = ranges.get(element), now = {};
    for (const name of Object.keys(layout).filter(isAxis)) {
      now[name] = layout[name].range && [...layout[name].range];
      const seen = element.layout?.[name]?.range, before = known?.name === layout.uirevision && known.now[name];
      if (seen && before && seen.some((end, place) => end !== before[place])) layout[name].range = [...seen];
    }
    ranges.set(element, { name: layout.uirevision, now });
  }

  const figures = new Map(); // element -> the figure it shows, for a change of theme

  async function show(element, figure) {
    figures.set(element, figure);
    if (!figure.data || !figure.data.length) {
      if (element.data) Plotly.purge(element);
      const said = document.createElement("p");
      said.className = "empty"; said.textContent = "Nothing to draw yet.";
      element.replaceChildren(said);
      return;
    }
    element.querySelector(".empty")?.remove();
    const made = themed(figure, element);
    if (element.dataset.legend === "no") made.layout.showlegend = false;
    zoomed(element, made.layout);
    await Plotly.react(element, made.data, made.layout, config);
    ticked(element);
    if (!element.dataset.wired) {
      element.dataset.wired = "yes";
      element.on("plotly_relayout", () => ticked(element));
      element.on("plotly_restyle", ([change, places]) => { // points that are switched on may be outside of what is shown
        const { xaxis, yaxis } = element.layout, outside = (at, one) => at !== null && ((v) => v < one.range[0] || v > one.range[1])(one.type === "log" ? Math.log10(at) : at);
        const added = [change.visible].flat().includes(true) ? places.map((place) => element.data[place]).filter((trace) => trace.mode === "markers") : [];
        if (added.some((trace) => trace.x.some((x) => outside(x, xaxis)) || trace.y.some((y) => outside(y, yaxis)))) Plotly.relayout(element, { "xaxis.autorange": true, "yaxis.autorange": true });
      });
      element.on("plotly_click", (event) => {
        const cell = event.points[0]?.customdata;
        if (cell !== undefined && element.dataset.point) location.href = element.dataset.point + cell;
      });
    }
  }

  async function draw(element) {
    if (typeof Plotly === "undefined") return;
    if (element.dataset.inline) return show(element, JSON.parse(document.getElementById(element.dataset.inline).textContent));
    const url = new URL(element.dataset.figure, location.href);
    if (element.dataset.search !== undefined) {
      const wanted = new URLSearchParams(location.search).get("show") || document.getElementById("show")?.options[0]?.value;
      if (wanted) url.searchParams.set("show", wanted);
    }
    const key = `${url}`, known = seen.get(element);
    const headers = known && known.key === key ? { "If-None-Match": known.tag } : {};
    try {
      const answer = await fetch(url, { headers, cache: "no-store" });
      if (answer.status === 304) return;
      if (!answer.ok) return;
      seen.set(element, { key, tag: answer.headers.get("ETag") });
      await show(element, await answer.json());
    } catch { /* the next poll says that the server is not reached */ }
  }

  const drawAll = () => document.querySelectorAll("[data-figure], [data-inline]").forEach(draw);
  const drawAgain = () => figures.forEach((figure, element) => { if (element.isConnected) show(element, figure); else figures.delete(element); });

  // --- the live part ---------------------------------------------------------------------
  let tag = null, tagged = "";
  document.addEventListener("htmx:config:request", (event) => {
    const { ctx } = event.detail;
    if (ctx.sourceElement !== live) return;
    if (document.hidden && tag) { event.preventDefault(); return; }
    if (live.dataset.search !== undefined) ctx.request.action = live.getAttribute("hx-get") + location.search;
    if (tag && tagged === ctx.request.action) ctx.request.headers["If-None-Match"] = tag;
    ctx.request.cache = "no-store";
  });
  const stale = document.getElementById("stale");
  document.addEventListener("htmx:before:response", (event) => {
    const { ctx } = event.detail;
    if (ctx.sourceElement !== live) return;
    const bad = ctx.response.status >= 400;
    if (stale) stale.hidden = !bad;
    if (bad) { event.preventDefault(); return; } // what was shown stays
    if (ctx.response.status === 200) { tag = ctx.response.headers.get("ETag"); tagged = ctx.request.action; }
  });
  document.addEventListener("htmx:error", () => { if (stale) stale.hidden = false; });
  document.addEventListener("htmx:after:swap", () => { fillSlots(); choose(); drawAll(); });
  // The list of figures grows when laws come in; what is drawn is what the address says.
  function choose() {
    const list = document.getElementById("show");
    if (list && list.options.length) list.value = new URLSearchParams(location.search).get("show") || list.options[0].value;
  }
  const refresh = () => { if (live) live.dispatchEvent(new Event("refresh")); };

  function go(changes) {
    const search = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) if (value) search.set(name, value); else search.delete(name);
    const text = search.toString();
    history.pushState(null, "", text ? `?${text}` : location.pathname);
    refresh();
  }

  // Forms stand beside the live part, so that what is being typed is never overwritten.
  function fillSlots() {
    document.querySelectorAll(".form-slot:empty").forEach((slot) => {
      const template = document.getElementById(slot.dataset.template);
      if (template) slot.append(template.content.cloneNode(true));
    });
  }

  document.addEventListener("submit", (event) => {
    if (event.target.id !== "filter") return;
    event.preventDefault();
    go({ ...Object.fromEntries(new FormData(event.target)), page: "" });
  });
  document.addEventListener("change", (event) => {
    const { target } = event;
    if (target.id === "show") { go({ show: target.value }); draw(document.getElementById("main-figure")); }
    else if (target.closest("#filter") && target.tagName === "SELECT") target.form.requestSubmit();
    else if (target.id === "pareto-metric" || target.id === "pareto-cost") {
      const element = document.getElementById("pareto");
      element.dataset.figure = `${element.dataset.pareto}?${new URLSearchParams({ metric: document.getElementById("pareto-metric").value, cost: document.getElementById("pareto-cost").value })}`;
      draw(element);
    }
  });
  addEventListener("popstate", () => location.reload());

  // --- clicks and keys -------------------------------------------------------------------
  document.addEventListener("click", async (event) => {
    const sorted = event.target.closest("a[data-query]");
    if (sorted && !event.metaKey && !event.ctrlKey) {
      event.preventDefault();
      const name = sorted.dataset.query, value = new URL(sorted.href).searchParams.get(name);
      go(name === "sort" ? { sort: value, page: "" } : { [name]: value });
      return;
    }
    const button = event.target.closest("[data-copy]");
    if (button) {
      await copy(button.dataset.copy);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1400);
    }
  });
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); } catch { // not allowed over plain http of another host
      const area = document.createElement("textarea");
      area.value = text; document.body.append(area); area.select(); document.execCommand("copy"); area.remove();
    }
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "[") document.getElementById("before")?.click();
    if (event.key === "]") document.getElementById("after")?.click();
    if (event.key === "/") { const where = document.querySelector("input[name=where]"); if (where) { event.preventDefault(); where.focus(); } }
  });

  // --- light and dark --------------------------------------------------------------------
  const root = document.documentElement;
  const remembered = (() => { try { return localStorage.getItem("sweepctl-theme"); } catch { return null; } })();
  if (remembered) root.dataset.theme = remembered;
  document.getElementById("theme")?.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("sweepctl-theme", root.dataset.theme); } catch { /* a report from a file may not */ }
    drawAgain();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);

  // --- the slider ------------------------------------------------------------------------
  const slider = document.getElementById("slider");
  if (slider) {
    const of = (id) => document.getElementById(id);
    const set = () => {
      of("slider-left").src = of("left").value + of("which").value;
      of("slider-right").src = of("right").value + of("which").value;
    };
    const split = (value) => slider.style.setProperty("--split", `${value}%`);
    for (const id of ["left", "right", "which"]) of(id).addEventListener("change", set);
    of("split").addEventListener("input", () => split(of("split").value));
    slider.addEventListener("pointermove", (event) => {
      const box = slider.getBoundingClientRect();
      const value = Math.round(100 * (event.clientX - box.left) / box.width);
      of("split").value = value; split(value);
    });
    set();
  }

  document.querySelectorAll("pre.log").forEach((log) => { log.scrollTop = log.scrollHeight; });
  fillSlots();
  drawAll();
})();
