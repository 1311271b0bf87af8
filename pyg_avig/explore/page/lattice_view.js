// @ts-check
"use strict";

/**
 * What a view draws.
 * @typedef {{focus: number | null, pinned: boolean, previous: number | null, links: Link[],
 *   colour: (weight: number) => string, heat: Float64Array | null, layer: Layer,
 *   weights: Float32Array, threshold: number, back: boolean, colouring: number}} Scene
 */

/** An image, under squares that are the nodes of a lattice. */
class LatticeView {
  /**
   * @param {Svg} svg
   * @param {Item} item @param {Stage} stage
   */
  constructor(svg, item, stage) {
    const { width, height, picture, pixelated } = item.record;
    this.svg = svg;
    this.item = item;
    this.stage = stage;
    const margin = 0.01 * Math.max(width, height); // Room for outlines at the border.
    svg.attr("viewBox", [-margin, -margin, width + 2 * margin, height + 2 * margin].join(" "));
    const whole = { x: 0, y: 0, width, height };
    const picture_ = svg.append("image").attr("href", picture).classed("pixelated", pixelated);
    this.heat = svg.append("image").attr("class", "heat");
    this.veil = svg.append("rect").attr("class", "veil");
    for (const element of [picture_, this.heat, this.veil]) {
      for (const [name, value] of Object.entries(whole)) element.attr(name, value);
      element.attr("preserveAspectRatio", "none");
    }
    this.squares = svg.append("g");
    this.marks = svg.append("g");
  }

  /** The place under a pointer. @param {number} x @param {number} y @returns {Place | null} */
  placeAt(x, y) {
    const { width, height } = this.item.record;
    return x < 0 || y < 0 || x >= width || y >= height ? null : { x, y };
  }

  /** One step from a node, by a key. @param {number} node @param {string} key @returns {Place} */
  step(node, key) {
    const { x, y } = this.stage.centre(node);
    const [dx, dy] = STEPS[key];
    const [rows, columns] = this.stage.size ?? [1, 1];
    const { side } = this.stage;
    return {
      x: Math.min(Math.max(x + dx * side, side / 2), (columns - 0.5) * side),
      y: Math.min(Math.max(y + dy * side, side / 2), (rows - 0.5) * side),
    };
  }

  /** @param {Scene} scene */
  draw(scene) {
    const { width, height } = this.item.record;
    const { side } = this.stage;
    const columns = this.stage.size?.[1] ?? 1;
    /** Geometry of a node's square, the last ones cut at the border. @param {number} node */
    const square = (node) => {
      const x = (node % columns) * side;
      const y = Math.floor(node / columns) * side;
      return { x, y, width: Math.min(side, width - x), height: Math.min(side, height - y) };
    };
    if (scene.heat !== null) this.heat.attr("href", this.heatPicture(scene.heat));
    this.heat.style("display", scene.heat === null ? "none" : "inline");
    this.veil.style("display", scene.focus === null || scene.heat !== null ? "none" : "inline");

    const shown = scene.links.filter((link) => link.weight >= scene.threshold);
    this.squares
      .selectAll("rect")
      .data(shown)
      .join("rect")
      .attr("class", scene.heat === null ? "neighbour" : "neighbour outlined")
      .attr("data-node", (link) => link.node)
      .attr("data-weight", (link) => link.weight.toFixed(4))
      .attr("x", (link) => square(link.node).x)
      .attr("y", (link) => square(link.node).y)
      .attr("width", (link) => square(link.node).width)
      .attr("height", (link) => square(link.node).height)
      .style("fill", (link) => (scene.heat === null ? scene.colour(link.weight) : "none"));

    /** @type {{node: number, kind: string}[]} */
    const marks = [];
    if (scene.previous !== null) marks.push({ node: scene.previous, kind: "previous" });
    if (scene.focus !== null) {
      marks.push({ node: scene.focus, kind: "halo" }, { node: scene.focus, kind: "focus" });
    }
    this.marks
      .selectAll("rect")
      .data(marks)
      .join("rect")
      .attr("class", (mark) => `${mark.kind}${scene.pinned ? " pinned" : ""}`)
      .attr("data-node", (mark) => mark.node)
      .attr("x", (mark) => square(mark.node).x)
      .attr("y", (mark) => square(mark.node).y)
      .attr("width", (mark) => square(mark.node).width)
      .attr("height", (mark) => square(mark.node).height);
  }

  /** A picture of a heat map over the finest lattice. @param {Float64Array} heat */
  heatPicture(heat) {
    const [rows, columns] = this.item.stages[0].size ?? [1, 1];
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = rows;
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const pixels = context.createImageData(columns, rows);
    const top = quantile99(heat);
    heat.forEach((value, node) => {
      const { r, g, b } = d3.rgb(d3.interpolateInferno(Math.min(value / top, 1)));
      pixels.data.set([r, g, b, 255], 4 * node);
    });
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }
}

/** Nearly the largest: one node that keeps most to itself shall not darken all others.
 * @param {Float64Array} values */
function quantile99(values) {
  return d3.quantile(values, 0.99) || d3.max(values) || 1;
}

/** @type {Record<string, [number, number]>} */
const STEPS = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};
