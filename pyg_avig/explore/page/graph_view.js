// @ts-check
"use strict";

const CANVAS = 400; // Side of a graph's drawing, in units of its own.

/** Turn of a cloud, shared by all panels, in radians. */
const turn = { around: 0.6, over: 0.35 };

/** Colours of classes that the colour-blind tell apart (Okabe and Ito). */
const CLASS_COLOURS = [
  "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999",
];

/** A graph whose nodes lie in a plane, or in space, where dragging turns them. */
class GraphView {
  /**
   * @param {Svg} svg
   * @param {Item} item @param {() => void} turned Called when the graph was turned.
   */
  constructor(svg, item, turned) {
    this.svg = svg;
    this.nodes = /** @type {NodesRecord} */ (item.nodes);
    this.solid = this.nodes.positions[0].length === 3;
    svg.attr("viewBox", `0 0 ${CANVAS} ${CANVAS}`).classed("graph", true);
    const inner = svg.append("g");
    this.all = inner.append("g").attr("class", "all");
    this.lines = inner.append("g").attr("class", "links");
    this.dots = inner.append("g").attr("class", "dots");
    this.marks = inner.append("g");
    this.symbols = inner.append("g").attr("class", "symbols");
    this.transform = d3.zoomIdentity;
    /** @type {number[][]} */
    this.at = [];
    this.radius = Math.max(2.5, Math.min(10, 90 / Math.sqrt(this.nodes.positions.length)));
    if (this.solid) {
      const drag = d3.drag().clickDistance(4).on("drag", (event) => {
        turn.around += event.dx / 120;
        turn.over = Math.min(Math.max(turn.over + event.dy / 120, -1.5), 1.5);
        turned();
      });
      svg.call(/** @type {any} */ (drag));
    } else {
      const zoom = d3
        .zoom()
        .scaleExtent([1, 12])
        .translateExtent([[0, 0], [CANVAS, CANVAS]])
        .clickDistance(4)
        // The page's own scrolling stays as it is.
        .filter((event) => (event.type === "wheel" ? event.ctrlKey : event.touches?.length !== 1))
        .on("zoom", ({ transform }) => {
          this.transform = transform;
          inner.attr("transform", transform);
        });
      svg.call(/** @type {any} */ (zoom)).on("dblclick.zoom", null);
    }
    this.project();
  }

  /** Find where nodes are on the canvas: x, y and, of a cloud, how near, 0 to 1. */
  project() {
    const centre = this.nodes.positions[0].map(
      (_, axis) => (Number(d3.min(this.nodes.positions, (p) => p[axis]))
        + Number(d3.max(this.nodes.positions, (p) => p[axis]))) / 2,
    );
    const moved = this.nodes.positions.map((p) => p.map((value, axis) => value - centre[axis]));
    const margin = 2 * this.radius + 6;
    if (this.solid) {
      const reach = Math.sqrt(Number(d3.max(moved, (p) => d3.sum(p, (v) => v * v)))) || 1;
      const [sinA, cosA] = [Math.sin(turn.around), Math.cos(turn.around)];
      const [sinO, cosO] = [Math.sin(turn.over), Math.cos(turn.over)];
      const scale = (CANVAS / 2 - margin) / reach;
      this.at = moved.map(([x, y, z]) => {
        const [along, depth] = [x * cosA + z * sinA, z * cosA - x * sinA];
        const [up, near] = [y * cosO - depth * sinO, y * sinO + depth * cosO];
        return [CANVAS / 2 + scale * along, CANVAS / 2 - scale * up, 0.5 + near / (2 * reach)];
      });
    } else {
      const reach = Number(d3.max(moved, (p) => Math.max(Math.abs(p[0]), Math.abs(p[1])))) || 1;
      const scale = (CANVAS / 2 - margin) / reach;
      this.at = moved.map(([x, y]) => [CANVAS / 2 + scale * x, CANVAS / 2 - scale * y, 1]);
    }
  }

  /** The place under a pointer. @param {number} x @param {number} y @returns {Place | null} */
  placeAt(x, y) {
    const [px, py] = this.transform.invert([x, y]);
    const reach = 26 / this.transform.k;
    /** @param {number[]} at */
    const distance = (at) => Math.hypot(at[0] - px, at[1] - py);
    const node = d3.leastIndex(this.at, (a, b) => distance(a) - distance(b));
    return node === undefined || distance(this.at[node]) > reach ? null : { node };
  }

  /** The nearest node in the direction of a key. @param {number} node @param {string} key */
  step(node, key) {
    const [dx, dy] = STEPS[key];
    const [x, y] = this.at[node];
    const ahead = d3.range(this.at.length).filter((other) => {
      const [ox, oy] = [this.at[other][0] - x, this.at[other][1] - y];
      const along = ox * dx + oy * dy;
      return along > 1e-6 && along >= Math.abs(ox * dy - oy * dx);
    });
    const found = d3.least(ahead, (o) => Math.hypot(this.at[o][0] - x, this.at[o][1] - y));
    return { node: found ?? node };
  }

  /** @param {Scene} scene */
  draw(scene) {
    if (this.solid) this.project();
    const { at, radius } = this;
    this.drawAll(scene);
    const shown = scene.links.filter((link) => link.weight >= scene.threshold);
    const focus = scene.focus ?? 0;
    this.lines
      .selectAll("line")
      .data(shown)
      .join("line")
      .attr("data-node", (link) => link.node)
      .attr("data-weight", (link) => link.weight.toFixed(4))
      .attr("x1", at[focus][0])
      .attr("y1", at[focus][1])
      .attr("x2", (link) => at[link.node][0])
      .attr("y2", (link) => at[link.node][1])
      .style("stroke", (link) => scene.colour(link.weight))
      .style("stroke-width", 3.5);

    const fill = this.fill(scene);
    const weights = new Map(shown.map((link) => [link.node, link.weight]));
    const order = d3.range(at.length);
    if (this.solid) order.sort((a, b) => at[a][2] - at[b][2]);
    this.dots
      .selectAll("circle")
      .data(order, (node) => String(node))
      .join("circle")
      .order()
      .attr("data-node", (node) => node)
      .attr("cx", (node) => at[node][0])
      .attr("cy", (node) => at[node][1])
      .attr("r", (node) => radius * (this.solid ? 0.6 + 0.7 * at[node][2] : 1))
      .classed("neighbour", (node) => weights.has(node))
      .style("fill", fill)
      .style("stroke", (node) => {
        const weight = weights.get(node);
        return weight === undefined ? "var(--card)" : scene.colour(weight);
      })
      .style("opacity", (node) =>
        scene.focus === null || weights.has(node) || node === scene.focus || scene.heat !== null
          ? 1
          : 0.45,
      );
    this.symbols
      .selectAll("text")
      .data(this.nodes.symbols ?? [])
      .join("text")
      .text((symbol) => symbol)
      .attr("x", (_, node) => at[node][0])
      .attr("y", (_, node) => at[node][1])
      .style("font-size", `${1.1 * radius}px`)
      .style("fill", (_, node) => inkOn(fill(node)));

    /** @type {{node: number, kind: string}[]} */
    const marks = [];
    if (scene.previous !== null) marks.push({ node: scene.previous, kind: "previous" });
    if (scene.focus !== null) {
      marks.push({ node: scene.focus, kind: "halo" }, { node: scene.focus, kind: "focus" });
    }
    this.marks
      .selectAll("circle")
      .data(marks)
      .join("circle")
      .attr("class", (mark) => `${mark.kind}${scene.pinned ? " pinned" : ""}`)
      .attr("data-node", (mark) => mark.node)
      .attr("cx", (mark) => at[mark.node][0])
      .attr("cy", (mark) => at[mark.node][1])
      .attr("r", radius * 1.3 + 1.5);
  }

  /**
   * All edges: the half beside the node that receives, so that both ways of a pair are seen.
   * A few paths in place of thousands of lines.
   * @param {Scene} scene
   */
  drawAll(scene) {
    const { at } = this;
    const { source, target } = scene.layer.edges;
    const BINS = 12;
    const [low, high] = extentOf(scene.weights);
    const paths = Array.from({ length: BINS }, () => /** @type {string[]} */ ([]));
    for (let e = 0; e < source.length; e++) {
      if (scene.weights[e] < scene.threshold) continue;
      const bin = Math.min(Math.floor((BINS * (scene.weights[e] - low)) / (high - low || 1)), 11);
      const [x, y] = at[target[e]];
      const [ox, oy] = at[source[e]];
      paths[bin].push(
        `M${x.toFixed(1)},${y.toFixed(1)}L${((x + ox) / 2).toFixed(1)},${((y + oy) / 2).toFixed(1)}`,
      );
    }
    this.all
      .classed("faint", scene.focus !== null)
      .selectAll("path")
      .data(paths)
      .join("path")
      .attr("d", (path) => path.join(""))
      .style("stroke", (_, bin) => scene.colour(low + ((bin + 0.5) * (high - low)) / BINS))
      .style("stroke-width", Math.max(0.5, Math.min(3, (3 * 200) / source.length)));
  }

  /** The colour of each node. @param {Scene} scene @returns {(node: number) => string} */
  fill(scene) {
    const { heat } = scene;
    if (heat !== null) {
      const top = quantile99(heat);
      return (node) => d3.interpolateInferno(Math.min(heat[node] / top, 1));
    }
    const colouring = this.nodes.colourings[scene.colouring];
    return colouring === undefined ? () => "var(--node)" : colourOf(colouring);
  }
}

/** @param {ColouringRecord} colouring @returns {(node: number) => string} */
function colourOf(colouring) {
  const { values, classes } = colouring;
  if (classes !== null) return (node) => CLASS_COLOURS[values[node] % CLASS_COLOURS.length];
  const [low, high] = extentOf(values);
  return (node) => numberColour(high > low ? (values[node] - low) / (high - low) : 0.5);
}

/** Without the ends, which black and white paper swallow. @param {number} share */
function numberColour(share) {
  return d3.interpolateCividis(0.12 + 0.83 * share);
}

/** Black or white, whichever is read more easily on a colour. @param {string} colour */
function inkOn(colour) {
  if (colour.startsWith("var")) return "var(--ink)";
  return d3.lab(colour).l > 58 ? "#111" : "#fff";
}
