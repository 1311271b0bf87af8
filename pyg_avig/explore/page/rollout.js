// @ts-check
"use strict";

/**
 * Attention rollout (Abnar and Zuidema 2020, https://arxiv.org/abs/2005.00928).
 *
 * There a block passes on half of what a node is and half of what it attends to, (A + I) / 2, for
 * the rows of A sum to one. Ours need not. Each node counts itself with weight one beside the
 * weights of its neighbours, and the whole is divided by its sum: (I + A) / (1 + row sum of A).
 * For rows that sum to one this is theirs; a node that weighs all neighbours near zero keeps itself.
 * Of a layer with several heads A is their mean. Between two stages a node hands its share to the
 * finer nodes that it covers, in equal parts. Convolutions are not followed.
 *
 * @param {Stage[]} stages
 * @param {number} last The stage in which the shares are given.
 * @param {number} block The last block of it that is followed back.
 * @param {Float64Array} share What each node of that stage has.
 * @returns {Float64Array} The same, of the nodes of the first stage.
 */
function rollout(stages, last, block, share) {
  for (let s = last; s >= 0; s--) {
    const { layers } = stages[s];
    const from = s === last ? block : layers.length - 1;
    for (let b = from; b >= 0; b--) share = throughLayer(layers[b], share);
    if (s > 0) share = toFiner(stages[s], stages[s - 1], share);
  }
  return share;
}

/** @param {Layer} layer @param {Float64Array} share */
function throughLayer(layer, share) {
  const { source, start, numNodes } = layer.edges;
  const passed = new Float64Array(numNodes);
  for (let i = 0; i < numNodes; i++) {
    if (share[i] === 0) continue;
    const scale = layer.averaged ? 1 / Math.max(start[i + 1] - start[i], 1) : 1;
    let sum = 1;
    for (let e = start[i]; e < start[i + 1]; e++) sum += scale * Math.abs(layer.mean[e]);
    passed[i] += share[i] / sum;
    for (let e = start[i]; e < start[i + 1]; e++) {
      passed[source[e]] += (share[i] * scale * Math.abs(layer.mean[e])) / sum;
    }
  }
  return passed;
}

/** @param {Stage} coarse @param {Stage} fine @param {Float64Array} share */
function toFiner(coarse, fine, share) {
  const parents = d3.range(fine.numNodes).map((node) => {
    const { x, y } = fine.centre(node);
    return coarse.nodeAt(x, y);
  });
  const covered = new Float64Array(coarse.numNodes);
  for (const parent of parents) covered[parent] += 1;
  const passed = Float64Array.from(parents, (parent) => share[parent] / covered[parent]);
  // One that covers no middle of a finer node lies within one.
  covered.forEach((number, node) => {
    if (number > 0) return;
    const { x, y } = coarse.centre(node);
    passed[fine.nodeAt(x, y)] += share[node];
  });
  return passed;
}
