"""An SVGA lattice in networkx: drawn, and analysed.

python examples/draw_lattice.py [PICTURE.png]
"""

import sys

import networkx as nx
from matplotlib.figure import Figure
from torch_geometric.data import Data
from torch_geometric.utils import to_networkx

from pyg_avig import AxialGraph


def main(path: str = "lattice.png") -> dict[str, int]:
    """Write the picture; degree, number of components and diameter of one."""
    lattice = AxialGraph(size=(6, 8), stride=2)
    data = Data(edge_index=lattice.edge_index, num_nodes=lattice.num_nodes)
    graph = to_networkx(data, to_undirected=True)

    components = list(nx.connected_components(graph))
    facts = {
        "degree": lattice.degree,
        "components": len(components),
        "diameter": nx.diameter(graph.subgraph(components[0])),
    }
    print(lattice, facts)

    rows, columns = lattice.size
    colour = {node: n for n, component in enumerate(components) for node in component}
    figure = Figure(figsize=(columns, rows))
    nx.draw(
        graph,
        pos={node: (node % columns, -(node // columns)) for node in graph},
        ax=figure.subplots(),
        node_color=[colour[node] for node in graph],
        cmap="tab10",
        connectionstyle="arc3,rad=0.3",  # Bent, or edges along a row would cover one another.
        arrows=True,
        width=0.5,
    )
    figure.savefig(path)
    print(f"written: {path}")
    return facts


if __name__ == "__main__":
    main(*sys.argv[1:])
