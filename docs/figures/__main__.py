"""Draw the figures of the pages anew: `python -m docs.figures`."""

from docs.figures.drawings import DRAWINGS, svg

if __name__ == "__main__":
    for path, draw in DRAWINGS.items():
        path.write_text(svg(draw()))
        print(f"written: {path}")
