// The two products of cross-attention on the classes of a lattice (pyg_avig/ops/axial.py).
//
// A class has `members` nodes, each a row of `channels` numbers, `step` numbers apart. Such classes
// are too small for a matrix library to be at its best: 7 x 7 weights of rows of 48 channels are
// typical. Weights are (before, inner, members, members), rows (before, members, inner, channels).

#include <omp.h>

#include "vector.h"

namespace {

constexpr int64_t kRows = 4;  // Rows that share each load of the other operand.

// out[j] = <a, row j of b>, for `rows` rows.
template <typename T, int64_t rows>
INLINE void dot_rows(const T* a, const T* b, T* out, int64_t step, int64_t channels) {
  typename Vector<T>::type sums[rows] = {};
  int64_t c = 0;
  for (; c + Vector<T>::size <= channels; c += Vector<T>::size) {
    const auto x = Vector<T>::load(a + c);
    for (int64_t j = 0; j < rows; ++j) sums[j] += x * Vector<T>::load(b + j * step + c);
  }
  for (int64_t j = 0; j < rows; ++j) {
    T total = Vector<T>::sum(sums[j]);
    for (int64_t rest = c; rest < channels; ++rest) total += a[rest] * b[j * step + rest];
    out[j] = total;
  }
}

// out[i][j] = <row i of a, row j of b>; with scales, one number a row, their product with both of
// theirs, held to [-1, 1].
template <typename T>
INLINE void pairs_in_class(const T* a, const T* b, const T* scale_a, const T* scale_b, T* out,
                           int64_t members, int64_t inner, int64_t channels) {
  const int64_t step = inner * channels;
  for (int64_t i = 0; i < members; ++i, a += step, out += members) {
    int64_t j = 0;
    for (; j + kRows <= members; j += kRows)
      dot_rows<T, kRows>(a, b + j * step, out + j, step, channels);
    for (; j < members; ++j) dot_rows<T, 1>(a, b + j * step, out + j, step, channels);
    if (scale_a == nullptr) continue;
    for (j = 0; j < members; ++j)
      out[j] = cosine(out[j], scale_a[i * inner], scale_b[j * inner]);
  }
}

// Row i of out (+)= sum over j of w[i * w_row + j * w_column] times row j of x, for `rows` rows.
template <typename T, int64_t rows>
INLINE void sum_rows(const T* x, const T* w, T* out, int64_t members, int64_t step,
                     int64_t channels, int64_t w_row, int64_t w_column, bool add) {
  int64_t c = 0;
  for (; c + Vector<T>::size <= channels; c += Vector<T>::size) {
    typename Vector<T>::type sums[rows] = {};
    if (add)
      for (int64_t i = 0; i < rows; ++i) sums[i] = Vector<T>::load(out + i * step + c);
    for (int64_t j = 0; j < members; ++j) {
      const auto row = Vector<T>::load(x + j * step + c);
      for (int64_t i = 0; i < rows; ++i) sums[i] += w[i * w_row + j * w_column] * row;
    }
    for (int64_t i = 0; i < rows; ++i) std::memcpy(out + i * step + c, &sums[i], kVectorBytes);
  }
  for (; c < channels; ++c)
    for (int64_t i = 0; i < rows; ++i) {
      T total = add ? out[i * step + c] : T(0);
      for (int64_t j = 0; j < members; ++j) total += w[i * w_row + j * w_column] * x[j * step + c];
      out[i * step + c] = total;
    }
}

template <typename T>
INLINE void spread_in_class(const T* x, const T* w, T* out, int64_t members, int64_t step,
                            int64_t channels, bool transpose, bool add) {
  const int64_t w_row = transpose ? 1 : members, w_column = transpose ? members : 1;
  int64_t i = 0;
  for (; i + kRows <= members; i += kRows)
    sum_rows<T, kRows>(x, w + i * w_row, out + i * step, members, step, channels, w_row, w_column,
                       add);
  for (; i < members; ++i)
    sum_rows<T, 1>(x, w + i * w_row, out + i * step, members, step, channels, w_row, w_column, add);
}

// One class, for each kind of processor.

FOR_EACH_CPU void pairs(const float* a, const float* b, const float* scale_a, const float* scale_b,
                        float* out, int64_t members, int64_t inner, int64_t channels) {
  pairs_in_class(a, b, scale_a, scale_b, out, members, inner, channels);
}

FOR_EACH_CPU void pairs(const double* a, const double* b, const double* scale_a,
                        const double* scale_b, double* out, int64_t members, int64_t inner,
                        int64_t channels) {
  pairs_in_class(a, b, scale_a, scale_b, out, members, inner, channels);
}

FOR_EACH_CPU void spread(const float* x, const float* w, float* out, int64_t members, int64_t step,
                         int64_t channels, bool transpose, bool add) {
  spread_in_class(x, w, out, members, step, channels, transpose, add);
}

FOR_EACH_CPU void spread(const double* x, const double* w, double* out, int64_t members,
                         int64_t step, int64_t channels, bool transpose, bool add) {
  spread_in_class(x, w, out, members, step, channels, transpose, add);
}

// Calls one(axis, its number, first row, first weight) for every class, graph by graph, so that
// what one axis has read is still in the cache for the next.
template <typename T, typename One>
void for_each_class(int64_t graphs, int64_t nodes, int64_t axes, const int64_t* sizes,
                    T* const* weights, One one) {
#pragma omp parallel for if (graphs >= omp_get_max_threads())
  for (int64_t g = 0; g < graphs; ++g)
    for (int64_t n = 0; n < axes; ++n) {
      const int64_t before = sizes[3 * n], members = sizes[3 * n + 1], inner = sizes[3 * n + 2];
      const int64_t classes = before * inner, square = members * members;
#pragma omp parallel for if (!omp_in_parallel())
      for (int64_t c = 0; c < classes; ++c) {
        const int64_t row = g * nodes + c / inner * members * inner + c % inner;
        one(n, members, inner, row, weights[n] + (g * classes + c) * square);
      }
    }
}

template <typename T>
void all_pairs(const T* a, const T* b, const T* scale_a, const T* scale_b, int64_t channels,
               int64_t graphs, int64_t nodes, int64_t axes, const int64_t* sizes,
               T* const* weights) {
  for_each_class(graphs, nodes, axes, sizes, weights,
                 [=](int64_t, int64_t members, int64_t inner, int64_t row, T* weight) {
                   pairs(a + row * channels, b + row * channels, scale_a ? scale_a + row : nullptr,
                         scale_b ? scale_b + row : nullptr, weight, members, inner, channels);
                 });
}

template <typename T>
void spread_all(const T* x, T* out, int64_t transpose, int64_t channels, int64_t graphs,
                int64_t nodes, int64_t axes, const int64_t* sizes, T* const* weights) {
  for_each_class(graphs, nodes, axes, sizes, weights,
                 [=](int64_t axis, int64_t members, int64_t inner, int64_t row, const T* weight) {
                   spread(x + row * channels, weight, out + row * channels, members,
                          inner * channels, channels, transpose != 0, axis > 0);
                 });
}

}  // namespace

extern "C" {

void axial_pairs_float(const float* a, const float* b, const float* scale_a, const float* scale_b,
                         int64_t channels, int64_t graphs, int64_t nodes, int64_t axes,
                         const int64_t* sizes, float* const* weights) {
  all_pairs(a, b, scale_a, scale_b, channels, graphs, nodes, axes, sizes, weights);
}

void axial_pairs_double(const double* a, const double* b, const double* scale_a,
                          const double* scale_b, int64_t channels, int64_t graphs, int64_t nodes,
                          int64_t axes, const int64_t* sizes, double* const* weights) {
  all_pairs(a, b, scale_a, scale_b, channels, graphs, nodes, axes, sizes, weights);
}

void axial_spread_float(const float* x, float* out, int64_t transpose, int64_t channels,
                          int64_t graphs, int64_t nodes, int64_t axes, const int64_t* sizes,
                          float* const* weights) {
  spread_all(x, out, transpose, channels, graphs, nodes, axes, sizes, weights);
}

void axial_spread_double(const double* x, double* out, int64_t transpose, int64_t channels,
                           int64_t graphs, int64_t nodes, int64_t axes, const int64_t* sizes,
                           double* const* weights) {
  spread_all(x, out, transpose, channels, graphs, nodes, axes, sizes, weights);
}

}  // extern "C"
