// @ts-check
"use strict";

/**
 * What pyg_avig/explore/record.py writes into the page.
 *
 * @typedef {{numNodes: number, source: string, start: string}} EdgesRecord
 * @typedef {{name: string, edges: number, beta: number[], affinity: string, averaged: boolean,
 *   low: number[], high: number[], weights: string}} LayerRecord
 * @typedef {{name: string, numNodes: number, size: [number, number] | null, side: number,
 *   layers: LayerRecord[]}} StageRecord
 * @typedef {{name: string, values: number[], classes: string[] | null}} ColouringRecord
 * @typedef {{positions: number[][], labels: string[], symbols: string[] | null,
 *   centre: number | null, colourings: ColouringRecord[], top: [string, number][][] | null}}
 *   NodesRecord
 * @typedef {{name: string, picture: string | null, width: number, height: number,
 *   pixelated: boolean, nodes: NodesRecord | null, top: [string, number][] | null,
 *   values: number[] | null, stages: StageRecord[]}} ItemRecord
 * @typedef {{title: string, version: string, edges: EdgesRecord[], items: ItemRecord[]}} PageRecord
 *
 * Where one looks: a pixel of an image, or a node of a graph.
 * @typedef {{x: number, y: number} | {node: number}} Place
 *
 * @typedef {d3.Selection<SVGSVGElement, any, any, any>} Svg
 *
 * A neighbour, and the weight of the edge to or from it.
 * @typedef {{node: number, weight: number}} Link
 */

/** @param {string} text */
function bytesOf(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

/** The least and largest value; of none, 0 and 0. @param {Iterable<number>} values
 * @returns {[number, number]} */
function extentOf(values) {
  const [low, high] = d3.extent(values);
  return [low ?? 0, high ?? 0];
}

/** Edges by their targets: those of node i are start[i] to start[i + 1]. */
class Edges {
  /** @param {EdgesRecord} record */
  constructor(record) {
    this.numNodes = record.numNodes;
    this.source = new Uint32Array(bytesOf(record.source).buffer);
    this.start = new Uint32Array(bytesOf(record.start).buffer);
    this.target = new Uint32Array(this.source.length);
    for (let i = 0; i < this.numNodes; i++) {
      this.target.fill(i, this.start[i], this.start[i + 1]);
    }
    /** @type {number[][] | null} */
    this.bySource = null;
  }

  /** @param {number} node */
  into(node) {
    return d3.range(this.start[node], this.start[node + 1]);
  }

  /** @param {number} node */
  outOf(node) {
    if (this.bySource === null) {
      this.bySource = Array.from({ length: this.numNodes }, () => []);
      for (let e = 0; e < this.source.length; e++) this.bySource[this.source[e]].push(e);
    }
    return this.bySource[node];
  }
}

const MEAN = -1; // In the place of a head: the mean over all.

class Layer {
  /** @param {LayerRecord} record @param {Edges[]} edges */
  constructor(record, edges) {
    this.name = record.name;
    this.beta = record.beta;
    this.affinity = record.affinity;
    this.averaged = record.averaged;
    this.edges = edges[record.edges];
    this.heads = record.beta.length;
    const bytes = bytesOf(record.weights);
    const number = this.edges.source.length;
    /** The weights of each head, decoded from a byte each. */
    this.byHead = record.beta.map((_, h) => {
      const scale = (record.high[h] - record.low[h]) / 255;
      return Float32Array.from(
        bytes.subarray(h * number, (h + 1) * number),
        (byte) => record.low[h] + scale * byte,
      );
    });
    this.mean = this.byHead[0];
    if (this.heads > 1) {
      this.mean = this.mean.map((_, e) => d3.mean(this.byHead, (weights) => weights[e]) ?? 0);
    }
  }

  /** The weight of each edge. @param {number} head */
  weights(head) {
    return head === MEAN ? this.mean : this.byHead[head];
  }

  /**
   * Whom a node attends to, or who attends to it.
   * @param {number} node @param {boolean} back @param {number} head @returns {Link[]}
   */
  links(node, back, head) {
    const weights = this.weights(head);
    const { source, target } = this.edges;
    const found = back ? this.edges.outOf(node) : this.edges.into(node);
    return found.map((e) => ({ node: back ? target[e] : source[e], weight: weights[e] }));
  }
}

class Stage {
  /** @param {StageRecord} record @param {Edges[]} edges */
  constructor(record, edges) {
    this.name = record.name;
    this.numNodes = record.numNodes;
    this.size = record.size;
    this.side = record.side;
    this.layers = record.layers.map((layer) => new Layer(layer, edges));
  }

  /** The node that covers a pixel of the image. @param {number} x @param {number} y */
  nodeAt(x, y) {
    const [rows, columns] = this.size ?? [1, 1];
    const row = Math.min(Math.max(Math.floor(y / this.side), 0), rows - 1);
    return row * columns + Math.min(Math.max(Math.floor(x / this.side), 0), columns - 1);
  }

  /** The pixel in the middle of a node. @param {number} node */
  centre(node) {
    const columns = this.size?.[1] ?? 1;
    return {
      x: ((node % columns) + 0.5) * this.side,
      y: (Math.floor(node / columns) + 0.5) * this.side,
    };
  }

  /** @param {Place} place */
  node(place) {
    return "node" in place ? place.node : this.nodeAt(place.x, place.y);
  }
}

class Item {
  /** @param {ItemRecord} record @param {Edges[]} edges */
  constructor(record, edges) {
    this.record = record;
    this.name = record.name;
    this.nodes = record.nodes;
    this.stages = record.stages.map((stage) => new Stage(stage, edges));
  }

  /** What a reader calls a node. @param {Stage} stage @param {number} node */
  label(stage, node) {
    if (this.nodes !== null) return this.nodes.labels[node];
    const columns = stage.size?.[1] ?? 1;
    return `(${Math.floor(node / columns)}, ${node % columns})`;
  }
}
