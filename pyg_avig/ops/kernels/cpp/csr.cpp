// The two products of cross-attention on a CSR matrix (pyg_avig/ops/csr.py).
//
// Its rows are the nodes that receive, its columns those that send. Node features are (nodes,
// heads, channels), weights (edges, heads).

#include <omp.h>

#include "dots.h"

namespace {

constexpr int64_t kAhead = 8;    // Edges whose features are fetched before their turn.
constexpr int64_t kChunk = 128;  // Rows that a thread takes at once: rows differ in length.
constexpr int64_t kVectors = 8;  // Sums that are held in registers at a time.
constexpr int64_t kHeads = 4;    // Narrow heads that are summed up at a time.

// The edges of one row, and where those of all rows end.
struct Edges {
  int64_t begin, end, last;
  const int64_t* columns;
};

struct Shape {
  int64_t heads, channels;
};

template <typename T>
INLINE void fetch(const T* row, int64_t numbers) {
  for (int64_t n = 0; n < numbers; n += 64 / sizeof(T)) __builtin_prefetch(row + n);
}

// out[e][h] = <a[h], b[column of e][h]> for the edges of one row from e on, `edges_at_once` at a
// time, then for what is left.
template <int64_t edges_at_once, typename T>
INLINE void pairs_in_row(Edges edges, const T* a, const T* b, const Sum<T>* scale_a,
                         const Sum<T>* scale_b, Sum<T>* out, Shape shape, int64_t e) {
  const int64_t heads = shape.heads, channels = shape.channels;
  for (; e + edges_at_once <= edges.end; e += edges_at_once) {
    for (int64_t n = 0; n < edges_at_once; ++n)
      if (e + kAhead + n < edges.last) {
        const int64_t column = edges.columns[e + kAhead + n];
        fetch(b + column * heads * channels, heads * channels);
        if (scale_b) fetch(scale_b + column * heads, heads);
      }
    for (int64_t h = 0; h < heads; ++h) {
      const T* row[1] = {a + h * channels};
      const T* others[edges_at_once];
      for (int64_t n = 0; n < edges_at_once; ++n)
        others[n] = b + (edges.columns[e + n] * heads + h) * channels;
      Sum<T> found[1][kDots];
      dots<1, edges_at_once>(row, others, channels, found);
      if (scale_a) {
        Sum<T> scales[kDots] = {};
        for (int64_t n = 0; n < edges_at_once; ++n)
          scales[n] = scale_b[edges.columns[e + n] * heads + h];
        to_cosines(found[0], scale_a[h], scales);
      }
      for (int64_t n = 0; n < edges_at_once; ++n) out[(e + n) * heads + h] = found[0][n];
    }
  }
  if constexpr (edges_at_once > 1)
    if (e < edges.end)
      pairs_in_row<edges_at_once - 1>(edges, a, b, scale_a, scale_b, out, shape, e);
}

// `vectors` vectors of each of `heads` heads of out = sum over the edges of w[e] * x[column of e].
// They lie side by side, but for the last of a head, which begins at `last`: where it laps over the
// one before, both have the same sums.
template <int64_t bytes, int64_t heads, int64_t vectors, typename T>
INLINE void sum_in_row(Edges edges, const int64_t* order, const T* x, const Sum<T>* w, T* out,
                       Shape shape, int64_t last) {
  typedef Sum<T> S;
  constexpr int64_t size = bytes / sizeof(S);
  const int64_t width = shape.heads * shape.channels;
  const auto place = [&](int64_t h, int64_t v) {
    return h * shape.channels + (v + 1 == vectors ? last : v * size);
  };
  Vector<S, bytes> sums[heads][vectors] = {};
  for (int64_t e = edges.begin; e < edges.end; ++e) {
    if (e + kAhead < edges.last) {
      fetch(x + edges.columns[e + kAhead] * width, heads * vectors * size);
      if (order) fetch(w + order[e + kAhead] * shape.heads, heads);
    }
    const S* weights = w + (order ? order[e] : e) * shape.heads;
    const T* row = x + edges.columns[e] * width;
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t v = 0; v < vectors; ++v)
        sums[h][v] += weights[h] * load<bytes>(row + place(h, v));
  }
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t v = 0; v < vectors; ++v)
      store<bytes>(out + place(h, v), sums[h][v]);
}

// One head of a row from its number c on, `vectors` vectors at a time, then what is left.
template <int64_t bytes, int64_t vectors, typename T>
INLINE void sum_head(Edges edges, const int64_t* order, const T* x, const Sum<T>* w, T* out,
                     Shape shape, int64_t c) {
  constexpr int64_t size = bytes / sizeof(Sum<T>);
  for (; c + vectors * size <= shape.channels; c += vectors * size)
    sum_in_row<bytes, 1, vectors>(edges, order, x + c, w, out + c, shape, (vectors - 1) * size);
  if (c == shape.channels) return;
  if constexpr (vectors > 1)
    sum_head<bytes, vectors / 2>(edges, order, x, w, out, shape, c);
  else if constexpr (size > 1) {
    if (shape.channels >= size)
      sum_in_row<bytes, 1, 1>(edges, order, x, w, out, shape, shape.channels - size);
    else
      sum_head<sizeof(Sum<T>), 1>(edges, order, x, w, out, shape, c);
  }
}

// out = sum over the edges of one row of w[e] * x[column of e].
template <int64_t bytes, typename T>
INLINE void spread_to_row(Edges edges, const int64_t* order, const T* x, const Sum<T>* w, T* out,
                          Shape shape) {
  constexpr int64_t size = bytes / sizeof(Sum<T>);
  const int64_t channels = shape.channels, last = channels - size;
  if constexpr (bytes > kLeast)
    if (channels < size) return spread_to_row<bytes / 2>(edges, order, x, w, out, shape);
  int64_t h = 0;
  if (channels == size)
    for (; h + kHeads <= shape.heads; h += kHeads)
      sum_in_row<bytes, kHeads, 1>(edges, order, x + h * channels, w + h, out + h * channels,
                                   shape, last);
  if (channels > size && channels <= 2 * size)
    for (; h + kHeads <= shape.heads; h += kHeads)
      sum_in_row<bytes, kHeads, 2>(edges, order, x + h * channels, w + h, out + h * channels,
                                   shape, last);
  for (; h < shape.heads; ++h)
    sum_head<bytes, kVectors>(edges, order, x + h * channels, w + h, out + h * channels, shape, 0);
}

template <typename T>
void csr_pairs(const T* a, const T* b, const Sum<T>* scale_a, const Sum<T>* scale_b, Sum<T>* out,
               const int64_t* pointer, const int64_t* columns, int64_t rows, int64_t heads,
               int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(dynamic, kChunk) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows; ++i)
    pairs_in_row<kDots>(Edges{pointer[i], pointer[i + 1], pointer[rows], columns},
                        a + i * heads * channels, b, scale_a ? scale_a + i * heads : nullptr,
                        scale_b, out, Shape{heads, channels}, pointer[i]);
}

template <typename T>
void csr_spread(const T* x, const Sum<T>* w, T* out, const int64_t* pointer,
                const int64_t* columns, const int64_t* order, int64_t rows, int64_t heads,
                int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(dynamic, kChunk) num_threads(threads) if (threads > 1)
  for (int64_t i = 0; i < rows; ++i)
    spread_to_row<kBytes>(Edges{pointer[i], pointer[i + 1], pointer[rows], columns}, order, x, w,
                          out + i * heads * channels, Shape{heads, channels});
}

}  // namespace

#define FOR_TYPE(T, name)                                                                         \
  extern "C" void csr_pairs_##name(const T* a, const T* b, const Sum<T>* scale_a,                 \
                                   const Sum<T>* scale_b, Sum<T>* out, const int64_t* pointer,    \
                                   const int64_t* columns, int64_t rows, int64_t heads,           \
                                   int64_t channels, int64_t threads) {                           \
    csr_pairs(a, b, scale_a, scale_b, out, pointer, columns, rows, heads, channels, threads);     \
  }                                                                                               \
  extern "C" void csr_spread_##name(const T* x, const Sum<T>* w, T* out, const int64_t* pointer,  \
                                    const int64_t* columns, const int64_t* order, int64_t rows,   \
                                    int64_t heads, int64_t channels, int64_t threads) {           \
    csr_spread(x, w, out, pointer, columns, order, rows, heads, channels, threads);               \
  }

FOR_TYPE(float, float)
FOR_TYPE(double, double)
FOR_TYPE(BFloat16, bfloat16)
FOR_TYPE(Float16, float16)
