// @ts-check
"use strict";

const HISTOGRAM = { width: 260, height: 84, left: 12, right: 12, top: 6, bottom: 20 };

/** The weights of a layer, in the colours that stand for them. */
class Histogram {
  /** @param {Svg} svg */
  constructor(svg) {
    const { width, height, bottom, top } = HISTOGRAM;
    svg.attr("viewBox", `0 0 ${width} ${height}`).attr("role", "img");
    this.svg = svg;
    this.bars = svg.append("g").attr("class", "bars");
    this.rug = svg.append("g").attr("class", "rug");
    this.axis = svg.append("g").attr("class", "axis")
      .attr("transform", `translate(0,${height - bottom})`);
    this.line = svg.append("line").attr("class", "threshold")
      .attr("y1", top).attr("y2", height - bottom);
    this.hidden = svg.append("rect").attr("class", "hidden")
      .attr("y", top).attr("height", height - bottom - top);
  }

  /** @param {Scene} scene @param {[number, number]} span */
  draw(scene, span) {
    const { width, height, left, right, top, bottom } = HISTOGRAM;
    const x = d3.scaleLinear(span, [left, width - right]);
    const step = (span[1] - span[0]) / 40;
    const bins = d3.bin().domain(span).thresholds(d3.range(1, 40).map((k) => span[0] + k * step))(
      scene.weights,
    );
    const y = d3.scaleLinear([0, d3.max(bins, (bin) => bin.length) || 1],
      [height - bottom, top]);
    this.bars
      .selectAll("rect")
      .data(bins)
      .join("rect")
      .attr("x", (bin) => x(bin.x0 ?? 0))
      .attr("width", (bin) => Math.max(x(bin.x1 ?? 0) - x(bin.x0 ?? 0) - 0.6, 0.4))
      .attr("y", (bin) => (bin.length ? Math.min(y(bin.length), height - bottom - 1) : y(0)))
      .attr("height", (bin) => (bin.length ? Math.max(y(0) - y(bin.length), 1) : 0))
      .style("fill", (bin) => scene.colour(((bin.x0 ?? 0) + (bin.x1 ?? 0)) / 2));
    this.rug
      .selectAll("line")
      .data(scene.links)
      .join("line")
      .attr("x1", (link) => x(link.weight))
      .attr("x2", (link) => x(link.weight))
      .attr("y1", height - bottom + 1)
      .attr("y2", height - bottom + 6);
    this.axis.call(/** @type {any} */ (d3.axisBottom(x).ticks(4).tickSize(0).tickPadding(8)));
    const cut = Math.min(Math.max(x(scene.threshold), left), width - right);
    const cuts = scene.threshold > span[0];
    this.line.attr("x1", cut).attr("x2", cut).style("display", cuts ? "inline" : "none");
    this.hidden.attr("x", left).attr("width", cuts ? cut - left : 0);
    const [low, high] = extentOf(scene.weights);
    this.svg.attr("aria-label",
      `Histogram of ${scene.weights.length} weights, ${low.toFixed(3)} to ${high.toFixed(3)}`);
  }
}
