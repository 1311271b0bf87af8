// The two products of cross-attention on the classes of a lattice (pyg_avig/ops/axial.py).
//
// A class has `members` nodes, each a row of `channels` numbers, `step` numbers apart. Such classes
// are too small for a matrix library to be at its best: 7 x 7 weights of rows of 48 channels are
// typical. Weights are (before, inner, members, members), rows (before, members, inner, channels).

#include <omp.h>

#include <memory>

#include "dots.h"

namespace {

constexpr int64_t kPairRows = 2;    // Rows whose products with kDots others are found at once.
constexpr int64_t kSumRows = 4;     // Rows that are summed up at once,
constexpr int64_t kSumVectors = 2;  // and the vectors of each.

struct Class {
  int64_t members, inner, channels;
};

// Where the weights of a class lie: row i's for j at i * row + j * column.
struct Strides {
  int64_t row, column;
};

template <int64_t rows, int64_t others, typename T>
INLINE void pairs_in_tile(const T* a, const T* b, const Sum<T>* scale_a, const Sum<T>* scale_b,
                          Sum<T>* out, Class sizes) {
  const int64_t step = sizes.inner * sizes.channels;
  const T *row[rows], *other[others];
  for (int64_t i = 0; i < rows; ++i) row[i] = a + i * step;
  for (int64_t j = 0; j < others; ++j) other[j] = b + j * step;
  Sum<T> found[rows][kDots];
  dots<rows, others>(row, other, sizes.channels, found);
  if (scale_a) {
    Sum<T> scales[kDots] = {};
    for (int64_t j = 0; j < others; ++j) scales[j] = scale_b[j * sizes.inner];
    for (int64_t i = 0; i < rows; ++i) to_cosines(found[i], scale_a[i * sizes.inner], scales);
  }
  for (int64_t i = 0; i < rows; ++i)
    std::memcpy(out + i * sizes.members, found[i], others * sizeof(Sum<T>));
}

// Takes `rows` rows at a time, then what is left of them.
template <int64_t rows, int64_t others, typename T>
INLINE void pairs_in_rows(const T* a, const T* b, const Sum<T>* scale_a, const Sum<T>* scale_b,
                          Sum<T>* out, Class sizes, int64_t i) {
  for (; i + rows <= sizes.members; i += rows)
    pairs_in_tile<rows, others>(a + i * sizes.inner * sizes.channels, b,
                                scale_a ? scale_a + i * sizes.inner : nullptr, scale_b,
                                out + i * sizes.members, sizes);
  if constexpr (rows > 1)
    if (i < sizes.members)
      pairs_in_rows<rows - 1, others>(a, b, scale_a, scale_b, out, sizes, i);
}

// out[i][j] = <row i of a, row j of b>; with scales, one number a row, their product with both of
// theirs, held to [-1, 1].
template <int64_t others, typename T>
INLINE void pairs_in_class(const T* a, const T* b, const Sum<T>* scale_a, const Sum<T>* scale_b,
                           Sum<T>* out, Class sizes, int64_t j) {
  for (; j + others <= sizes.members; j += others)
    pairs_in_rows<kPairRows, others>(a, b + j * sizes.inner * sizes.channels, scale_a,
                                     scale_b ? scale_b + j * sizes.inner : nullptr, out + j, sizes,
                                     0);
  if constexpr (others > 1)
    if (j < sizes.members) pairs_in_class<others - 1>(a, b, scale_a, scale_b, out, sizes, j);
}

// Row i of out = row i of so_far (if there is one) + sum over j of weight (i, j) times row j of x,
// for `rows` rows and the numbers from c on that fill `vectors` vectors.
template <int64_t bytes, int64_t rows, int64_t vectors, typename T>
INLINE void sum_in_tile(const T* x, const Sum<T>* w, const Sum<T>* so_far, Sum<T>* out, Class sizes,
                        Strides strides, int64_t c) {
  typedef Sum<T> S;
  constexpr int64_t size = bytes / sizeof(S);
  const int64_t step = sizes.inner * sizes.channels;
  Vector<S, bytes> sums[rows][vectors] = {};
  if (so_far)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t v = 0; v < vectors; ++v)
        sums[i][v] = load<bytes>(so_far + i * step + c + v * size);
  for (int64_t j = 0; j < sizes.members; ++j) {
    Vector<S, bytes> row[vectors];
    for (int64_t v = 0; v < vectors; ++v) row[v] = load<bytes>(x + j * step + c + v * size);
    for (int64_t i = 0; i < rows; ++i) {
      const S weight = w[i * strides.row + j * strides.column];
      for (int64_t v = 0; v < vectors; ++v) sums[i][v] += weight * row[v];
    }
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t v = 0; v < vectors; ++v)
      store<bytes>(out + i * step + c + v * size, sums[i][v]);
}

template <int64_t bytes, int64_t rows, typename T>
INLINE void sum_in_rows(const T* x, const Sum<T>* w, const Sum<T>* so_far, Sum<T>* out, Class sizes,
                        Strides strides, int64_t c) {
  constexpr int64_t size = bytes / sizeof(Sum<T>);
  if constexpr (bytes == kBytes)
    for (; c + kSumVectors * size <= sizes.channels; c += kSumVectors * size)
      sum_in_tile<bytes, rows, kSumVectors>(x, w, so_far, out, sizes, strides, c);
  for (; c + size <= sizes.channels; c += size)
    sum_in_tile<bytes, rows, 1>(x, w, so_far, out, sizes, strides, c);
  if constexpr (size > 1)
    sum_in_rows<kNarrower<Sum<T>, bytes>, rows>(x, w, so_far, out, sizes, strides, c);
}

template <int64_t rows, typename T>
INLINE void spread_in_class(const T* x, const Sum<T>* w, const Sum<T>* so_far, Sum<T>* out,
                            Class sizes, Strides strides, int64_t i) {
  const int64_t step = sizes.inner * sizes.channels;
  for (; i + rows <= sizes.members; i += rows)
    sum_in_rows<kBytes, rows>(x, w + i * strides.row, so_far ? so_far + i * step : nullptr,
                              out + i * step, sizes, strides, 0);
  if constexpr (rows > 1)
    if (i < sizes.members) spread_in_class<rows - 1>(x, w, so_far, out, sizes, strides, i);
}

// Calls one(axis, sizes, first row, first weight) for every class of a graph, axis by axis, so that
// what one axis has read is still in the cache for the next.
template <typename S, typename One>
void for_each_class(int64_t graph, int64_t nodes, int64_t channels, int64_t axes,
                    const int64_t* sizes, S* const* weights, int64_t threads, One one) {
  for (int64_t n = 0; n < axes; ++n) {
    const int64_t before = sizes[3 * n], members = sizes[3 * n + 1], inner = sizes[3 * n + 2];
    const int64_t classes = before * inner, square = members * members;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < classes; ++c)
      one(n, Class{members, inner, channels},
          graph * nodes + c / inner * members * inner + c % inner,
          weights[n] + (graph * classes + c) * square);
  }
}

template <int64_t bytes, typename T>
INLINE void copy_numbers(const Sum<T>* from, T* to, int64_t numbers) {
  constexpr int64_t size = bytes / sizeof(Sum<T>);
  int64_t n = 0;
  for (; n + size <= numbers; n += size) store<bytes>(to + n, load<bytes>(from + n));
  for (; n < numbers; ++n) store<sizeof(Sum<T>)>(to + n, load<sizeof(Sum<T>)>(from + n));
}

template <typename T>
void axial_pairs(const T* a, const T* b, const Sum<T>* scale_a, const Sum<T>* scale_b,
                 int64_t channels, int64_t graphs, int64_t nodes, int64_t axes,
                 const int64_t* sizes, Sum<T>* const* weights, int64_t threads) {
  const bool by_graph = graphs >= threads;
#pragma omp parallel for num_threads(threads) if (by_graph && threads > 1)
  for (int64_t g = 0; g < graphs; ++g)
    for_each_class(g, nodes, channels, axes, sizes, weights, by_graph ? 1 : threads,
                   [=](int64_t, Class sizes, int64_t row, Sum<T>* weight) {
                     pairs_in_class<kDots>(a + row * channels, b + row * channels,
                                           scale_a ? scale_a + row : nullptr,
                                           scale_b ? scale_b + row : nullptr, weight, sizes, 0);
                   });
}

template <typename T>
void axial_spread(const T* x, T* out, int64_t transpose, int64_t channels, int64_t graphs,
                  int64_t nodes, int64_t axes, const int64_t* sizes, Sum<T>* const* weights,
                  int64_t threads) {
  const bool by_graph = graphs >= threads;
#pragma omp parallel for num_threads(threads) if (by_graph && threads > 1)
  for (int64_t g = 0; g < graphs; ++g) {
    // The axes add up in single precision at least, so half-precision numbers are rounded once.
    const int64_t first = g * nodes * channels, numbers = nodes * channels;
    constexpr bool wide = std::is_same_v<T, Sum<T>>;
    const std::unique_ptr<Sum<T>[]> buffer(wide ? nullptr : new Sum<T>[numbers]);
    Sum<T>* const sums = wide ? reinterpret_cast<Sum<T>*>(out) + first : buffer.get();
    for_each_class(g, nodes, channels, axes, sizes, weights, by_graph ? 1 : threads,
                   [=](int64_t axis, Class sizes, int64_t row, const Sum<T>* w) {
                     const Strides strides =
                         transpose ? Strides{1, sizes.members} : Strides{sizes.members, 1};
                     Sum<T>* const mine = sums + row * channels - first;
                     spread_in_class<kSumRows>(x + row * channels, w, axis > 0 ? mine : nullptr,
                                               mine, sizes, strides, 0);
                   });
    if (!wide) copy_numbers<kBytes>(sums, out + first, numbers);
  }
}

}  // namespace

#define FOR_TYPE(T, name)                                                                       \
  extern "C" void axial_pairs_##name(const T* a, const T* b, const Sum<T>* scale_a,             \
                                     const Sum<T>* scale_b, int64_t channels, int64_t graphs,   \
                                     int64_t nodes, int64_t axes, const int64_t* sizes,         \
                                     Sum<T>* const* weights, int64_t threads) {                 \
    axial_pairs(a, b, scale_a, scale_b, channels, graphs, nodes, axes, sizes, weights, threads); \
  }                                                                                             \
  extern "C" void axial_spread_##name(const T* x, T* out, int64_t transpose, int64_t channels,  \
                                      int64_t graphs, int64_t nodes, int64_t axes,              \
                                      const int64_t* sizes, Sum<T>* const* weights,             \
                                      int64_t threads) {                                        \
    axial_spread(x, out, transpose, channels, graphs, nodes, axes, sizes, weights, threads);    \
  }

FOR_TYPE(float, float)
FOR_TYPE(double, double)
FOR_TYPE(BFloat16, bfloat16)
FOR_TYPE(Float16, float16)
