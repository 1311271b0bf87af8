// @ts-check
"use strict";

/** All that is on the page. */
class Page {
  /** @param {PageRecord} record */
  constructor(record) {
    const edges = record.edges.map((one) => new Edges(one));
    this.items = record.items.map((item) => new Item(item, edges));
    /** @type {State} */
    this.state = {
      item: 0,
      hover: null,
      pin: null,
      previous: null,
      back: false,
      threshold: 0,
      wholeSpan: false,
      heat: false,
      byBlock: false,
      colouring: 0,
      block: [],
      head: [],
    };
    /** @type {Panel[]} */
    this.panels = [];
    this.waiting = false;
    d3.select("h1").text(record.title);
    d3.select("#version").text(record.version);
    this.listen();
    this.show(0);
  }

  /** @returns {Item} */
  get item() {
    return this.items[this.state.item];
  }

  /** What is looked at: what is pinned, or under the pointer. */
  get focus() {
    return this.state.pin ?? this.state.hover;
  }

  isDark() {
    const theme = document.documentElement.dataset.theme;
    return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  /** Change the state, and draw it when the browser draws. @param {Partial<State>} change */
  set(change) {
    Object.assign(this.state, change);
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  listen() {
    /** @param {string} name @param {(input: HTMLInputElement) => Partial<State>} change */
    const on = (name, change) =>
      d3.select(name).on("input", ({ currentTarget }) =>
        this.set(change(/** @type {HTMLInputElement} */ (currentTarget))));
    on("#forth", () => ({ back: false, previous: null }));
    on("#back", () => ({ back: true, previous: null }));
    on("#threshold", (input) => ({ threshold: Number(input.value) }));
    on("#span", (input) => ({ wholeSpan: input.checked }));
    on("#heat", (input) => ({ heat: input.checked }));
    on("#colouring", (input) => ({ colouring: Number(input.value) }));
    d3.select("#by-block").on("input", () => {
      this.state.byBlock = !this.state.byBlock;
      this.makePanels();
      this.draw();
    });
    d3.select("#theme").on("click", () => {
      document.documentElement.dataset.theme = this.isDark() ? "light" : "dark";
      this.draw();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    d3.select(document).on("keydown", (event) => {
      // In a list, letters choose an entry.
      if (event.target instanceof HTMLSelectElement) return;
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === "Escape") this.set({ pin: null, hover: null, previous: null, back: false });
      else if (event.key === "b") this.set({ back: !this.state.back, previous: null });
      else if (event.key === "r") this.set({ heat: !this.state.heat });
    });
  }

  /** Show another image or graph. @param {number} index */
  show(index) {
    const item = this.items[index];
    const { centre = null } = item.nodes ?? {};
    this.state.item = index;
    Object.assign(this.state, { hover: null, previous: null, back: false, colouring: 0 });
    this.state.pin = centre === null ? null : { node: centre };
    // The last block of a stage, as in the static picture; what was chosen stays.
    item.stages.forEach((stage, s) => {
      const { block, head } = this.state;
      block[s] = Math.min(block[s] ?? Infinity, stage.layers.length - 1);
      head[s] = Math.min(head[s] ?? MEAN, (d3.min(stage.layers, (layer) => layer.heads) ?? 1) - 1);
    });
    const layers = item.stages.flatMap((stage) => stage.layers);
    const most = Number(d3.max(layers, (layer) => d3.max(layer.byHead.map((w) => d3.max(w) ?? 0))));
    d3.select("#threshold").attr("max", most).attr("step", most / 200);
    this.state.threshold = Math.min(this.state.threshold, most);
    this.makePanels();
    this.draw();
  }

  makePanels() {
    const { item } = this;
    this.panels = item.stages.flatMap((stage, s) =>
      this.state.byBlock
        ? stage.layers.map((_, b) => new Panel(this, item, s, b))
        : [new Panel(this, item, s, null)],
    );
    const root = d3.select("#panels").html("").attr("data-number", this.panels.length);
    for (const panel of this.panels) root.append(() => panel.root.node());
  }

  draw() {
    for (const panel of this.panels) panel.draw();
    this.drawItems();
    this.drawTools();
    this.drawPrediction();
    if (this.item.nodes !== null) this.drawLegend(this.item.nodes);
  }

  drawItems() {
    const buttons = d3
      .select("#items")
      .classed("single", this.items.length === 1)
      .selectAll("button")
      .data(this.items)
      .join((enter) => {
        const button = enter.append("button").attr("type", "button");
        button
          .filter((item) => item.record.picture !== null)
          .append("img")
          .attr("src", (item) => item.record.picture)
          .attr("alt", "")
          .classed("pixelated", (item) => item.record.pixelated);
        button.append("span");
        return button;
      });
    buttons
      .attr("aria-pressed", (_, i) => String(i === this.state.item))
      .attr("title", (item) => item.name)
      .on("click", (_, item) => this.show(this.items.indexOf(item)));
    buttons.select("span").text((item) => item.name);
  }

  drawTools() {
    const { state, item } = this;
    d3.select("#forth").property("checked", !state.back);
    d3.select("#back").property("checked", state.back);
    d3.select("#heat").property("checked", state.heat);
    d3.select("#threshold").property("value", state.threshold);
    d3.select("#threshold-value").text(state.threshold.toFixed(2));
    const several = item.stages.some((stage) => stage.layers.length > 1);
    d3.select("#by-block-tool").property("hidden", !several);
    d3.select("#status").text(
      state.pin === null
        ? "Point at a node, click to hold it."
        : state.back
          ? "Held. Shown is who attends to it; click it to let go."
          : "Held. Click a neighbour to see who attends to it, or the node to let go.",
    );
    document.body.dataset.kind = item.nodes === null ? "image" : "graph";
    document.body.dataset.pinned = String(state.pin !== null);
  }

  drawPrediction() {
    const { record, nodes } = this.item;
    const focus = this.focus;
    const ofNode = nodes?.top && focus && "node" in focus ? focus.node : null;
    const top = ofNode === null ? record.top : (nodes?.top?.[ofNode] ?? null);
    const values = record.values;
    const about = ofNode === null ? "Prediction" : `Prediction, ${nodes?.labels[ofNode]}`;
    d3.select("#prediction h2").text(about);
    d3.select("#prediction").property("hidden", top === null && values === null);
    d3.select("#values").text(values === null ? "" : values.map((v) => v.toPrecision(4)).join(", "));
    const rows = d3
      .select("#top")
      .selectAll("li")
      .data(top ?? [])
      .join((enter) => {
        const row = enter.append("li");
        for (const part of ["class", "bar", "share"]) row.append("span").attr("class", part);
        return row;
      });
    rows.select(".class").text(([name]) => name);
    rows.select(".bar").style("--share", ([, share]) => share);
    rows.select(".share").text(([, share]) => `${(100 * share).toFixed(1)} %`);
  }

  /** What the colours of nodes stand for. @param {NodesRecord} nodes */
  drawLegend(nodes) {
    d3.select("#colouring")
      .selectAll("option")
      .data(nodes.colourings)
      .join("option")
      .attr("value", (_, i) => i)
      .property("selected", (_, i) => i === this.state.colouring)
      .text((colouring) => colouring.name);
    d3.select("#colouring-tool").property("hidden", nodes.colourings.length === 0);
    const colouring = nodes.colourings[this.state.colouring];
    /** @type {[string, string][]} */
    let entries = [];
    if (colouring?.classes) {
      const used = new Set(colouring.values);
      entries = colouring.classes
        .map((name, i) => /** @type {[string, string]} */ ([
          name, CLASS_COLOURS[i % CLASS_COLOURS.length],
        ]))
        .filter((_, i) => used.has(i));
    } else if (colouring) {
      const [low, high] = extentOf(colouring.values);
      entries = [
        [low.toPrecision(3), numberColour(0)],
        [high.toPrecision(3), numberColour(1)],
      ];
    }
    d3.select("#legend")
      .selectAll("li")
      .data(entries)
      .join("li")
      .style("--colour", ([, colour]) => colour)
      .text(([name]) => name);
  }
}

const record = /** @type {PageRecord} */ (
  JSON.parse(document.getElementById("data")?.textContent ?? "")
);
const page = new Page(record);
