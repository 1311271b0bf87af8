// @ts-check
"use strict";

/**
 * What the user has chosen.
 * @typedef {{item: number, hover: Place | null, pin: Place | null, previous: Place | null,
 *   back: boolean, threshold: number, wholeSpan: boolean, heat: boolean, byBlock: boolean,
 *   colouring: number, block: number[], head: number[]}} State
 */

/** One stage, or one block of it: its picture, its controls, its histogram. */
class Panel {
  /**
   * @param {Page} page @param {Item} item @param {number} s @param {number | null} block
   *   The one block that the panel is of; null lets the user choose.
   */
  constructor(page, item, s, block) {
    this.page = page;
    this.item = item;
    this.s = s;
    this.fixed = block;
    this.stage = item.stages[s];
    /** @type {Place | null} */
    this.under = null;

    this.root = d3.create("figure").attr("class", "panel").attr("data-stage", s);
    const caption = this.root.append("figcaption");
    const where = this.stage.size === null
      ? `${this.stage.numNodes} nodes`
      : `${this.stage.size.join(" × ")} nodes`;
    const number = block === null ? [] : [`block ${block + 1}`];
    const named = block === null || item.stages.length > 1 ? [this.stage.name] : [];
    const name = [...named, ...number].join(", ");
    caption.append("h2").text(name).append("small").text(where);
    const controls = caption.append("div").attr("class", "controls");
    this.blocks = controls.append("span").attr("class", "choice blocks");
    this.heads = controls.append("span").attr("class", "choice heads");
    this.svg = this.root
      .append("svg")
      .attr("class", "picture")
      .attr("tabindex", 0)
      .attr("role", "application");
    this.view = item.nodes === null
      ? new LatticeView(this.svg, item, this.stage)
      : new GraphView(this.svg, item, () => page.draw());
    this.readout = this.root.append("p").attr("class", "readout").attr("aria-live", "polite");
    this.histogram = new Histogram(this.root.append("svg").attr("class", "histogram"));
    this.listen();
  }

  get block() {
    return this.fixed ?? this.page.state.block[this.s];
  }

  get layer() {
    return this.stage.layers[this.block];
  }

  get head() {
    return this.layer.heads === 1 ? 0 : this.page.state.head[this.s];
  }

  listen() {
    const { page, svg } = this;
    svg
      .on("pointermove", (event) => {
        const [x, y] = d3.pointer(event, svg.node());
        this.under = this.view.placeAt(x, y);
        page.set({ hover: this.under });
      })
      .on("pointerleave", () => {
        this.under = null;
        page.set({ hover: null });
      })
      .on("click", (event) => {
        const [x, y] = d3.pointer(event, svg.node());
        const place = this.view.placeAt(x, y);
        if (place !== null) this.click(place);
      })
      .on("keydown", (event) => {
        if (event.key in STEPS) this.walk(event.key);
        else if (event.key === "Enter" || event.key === " ") {
          if (page.focus !== null) this.click(page.focus);
        } else return;
        event.preventDefault();
      });
  }

  /** Pin a node; of a neighbour of the pinned one, show who attends to it. @param {Place} place */
  click(place) {
    const { state } = this.page;
    if (state.pin === null) {
      this.page.set({ pin: place, back: state.back, previous: null });
      return;
    }
    const pinned = this.stage.node(state.pin);
    const node = this.stage.node(place);
    const neighbours = state.back ? [] : this.layer.links(pinned, false, this.head);
    if (node === pinned) {
      this.page.set({ pin: null, previous: null, back: false });
    } else if (neighbours.some((link) => link.node === node)) {
      this.page.set({ pin: place, previous: state.pin, back: true });
    } else {
      this.page.set({ pin: place, previous: null, back: false });
    }
  }

  /** Move what is in focus by a node. @param {string} key */
  walk(key) {
    const { page } = this;
    const at = page.focus ?? this.middle();
    const next = page.focus === null ? at : this.view.step(this.stage.node(at), key);
    page.set(page.state.pin === null ? { hover: next } : { pin: next, previous: null });
  }

  /** @returns {Place} */
  middle() {
    if (this.item.nodes !== null) return { node: this.item.nodes.centre ?? 0 };
    return { x: this.item.record.width / 2, y: this.item.record.height / 2 };
  }

  /** The span of values that the colours stand for. @returns {[number, number]} */
  span() {
    const [low, high] = extentOf(this.layer.weights(this.head));
    if (this.page.state.wholeSpan) return [Math.min(0, low), Math.max(1, high)];
    return high > low ? [low, high] : [low - 0.05, high + 0.05];
  }

  draw() {
    const { page, stage, layer, head } = this;
    const { state } = page;
    const focus = page.focus === null ? null : stage.node(page.focus);
    const span = this.span();
    const scale = d3.scaleLinear(span, [0, 1]).clamp(true);
    // On white paper the lightest colours would vanish, and strong edges are to be seen first.
    const onPaper = this.item.nodes !== null && !page.isDark();
    /** @param {number} weight */
    const colour = (weight) =>
      d3.interpolateViridis(onPaper ? 0.93 * (1 - scale(weight)) : scale(weight));
    const previous = state.previous === null ? null : stage.node(state.previous);
    /** @type {Scene} */
    const scene = {
      focus,
      pinned: state.pin !== null,
      previous: previous === focus ? null : previous,
      links: focus === null ? [] : layer.links(focus, state.back, head),
      colour,
      heat: state.heat ? this.heat(focus) : null,
      layer,
      weights: layer.weights(head),
      threshold: state.threshold,
      back: state.back,
      colouring: state.colouring,
    };
    this.view.draw(scene);
    this.histogram.draw(scene, span);
    this.drawControls();
    const said = this.describe(scene);
    // Screen readers read what changes, and only that.
    if (this.readout.text() !== said) this.readout.text(said);
    this.svg.attr("aria-label",
      `${this.item.name}, ${this.stage.name}, ${this.layer.name}. Arrow keys move, Enter pins.`);
  }

  /** Rollout from the node in focus, or from all. @param {number | null} focus */
  heat(focus) {
    const share = new Float64Array(this.stage.numNodes);
    if (focus === null) share.fill(1 / share.length);
    else share[focus] = 1;
    return rollout(this.item.stages, this.s, this.block, share);
  }

  drawControls() {
    const { page, stage, layer, s } = this;
    const several = this.fixed === null && stage.layers.length > 1;
    const blocks = several ? d3.range(stage.layers.length) : [];
    choose(this.blocks, "block", blocks, this.block, (b) => String(b + 1), (b) =>
      page.set({ block: page.state.block.with(s, b) }));
    const heads = layer.heads === 1 ? [] : [MEAN, ...d3.range(layer.heads)];
    choose(this.heads, "head", heads, this.head, (h) => (h === MEAN ? "mean" : String(h + 1)),
      (h) => page.set({ head: page.state.head.with(s, h) }));
    this.root.select("h2").attr("title", layer.name);
  }

  /** The scene in words. @param {Scene} scene */
  describe(scene) {
    const { item, stage, layer, head } = this;
    const betas = head === MEAN ? layer.beta : [layer.beta[head]];
    const [least, most] = extentOf(betas).map((beta) => beta.toPrecision(3));
    const beta = `${layer.affinity}, β = ${least === most ? least : `${least} to ${most}`}`;
    if (scene.focus === null) {
      const [low, high] = extentOf(scene.weights).map((weight) => weight.toFixed(2));
      return `${scene.weights.length} weights, ${low} to ${high}; ${beta}`;
    }
    const name = item.label(stage, scene.focus);
    const shown = scene.links.filter((link) => link.weight >= scene.threshold);
    const number = shown.length === scene.links.length
      ? String(shown.length)
      : `${shown.length} of ${scene.links.length}`;
    const [low, high] = extentOf(shown.map((link) => link.weight)).map((w) => w.toFixed(2));
    const weights = shown.length === 0 ? "" : `, weights ${low} to ${high}`;
    const said = scene.back
      ? `${name} is attended to by ${number} nodes${weights}`
      : `${name} attends to ${number} nodes${weights}`;
    return `${said}; ${this.underPointer(scene) ?? beta}`;
  }

  /** The weight of the neighbour under the pointer. @param {Scene} scene */
  underPointer(scene) {
    if (this.under === null || !scene.pinned) return null;
    const node = this.stage.node(this.under);
    const link = scene.links.find((link) => link.node === node);
    if (link === undefined) return null;
    return `${this.item.label(this.stage, node)} weighs ${link.weight.toFixed(3)}`;
  }
}

/**
 * A row of buttons, one of which is chosen; none where there is no choice.
 * @param {d3.Selection<HTMLSpanElement, any, any, any>} root
 * @param {string} title @param {number[]} options @param {number} chosen
 * @param {(option: number) => string} label @param {(option: number) => void} choose
 */
function choose(root, title, options, chosen, label, choose) {
  root.attr("role", "group").attr("aria-label", title);
  root.selectAll("label").data(options.length ? [title] : []).join("label").text((t) => t);
  root
    .selectAll("button")
    .data(options)
    .join("button")
    .attr("type", "button")
    .attr("aria-label", (option) => `${title} ${label(option)}`)
    .attr("aria-pressed", (option) => String(option === chosen))
    .text(label)
    .on("click", (_, option) => choose(option));
}
