// The two products of cross-attention on a CSR matrix (pyg_avig/ops/csr.py).
//
// Its rows are the nodes that receive, its columns those that send. Node features are (nodes,
// heads, channels), weights (edges, heads).

#include "vector.h"

namespace {

constexpr int64_t kAhead = 4;     // Edges whose features are fetched before their turn.
constexpr int64_t kChunk = 128;   // Rows that a thread takes at once: rows differ in length.
constexpr int64_t kVectors = 4;   // Sums that are held in registers at a time.

template <typename T>
INLINE void fetch(const T* row, int64_t numbers) {
  for (int64_t n = 0; n < numbers; n += kVectorBytes / sizeof(T)) __builtin_prefetch(row + n);
}

template <typename T>
INLINE T dot(const T* a, const T* b, int64_t channels) {
  typename Vector<T>::type sum = {};
  int64_t c = 0;
  for (; c + Vector<T>::size <= channels; c += Vector<T>::size)
    sum += Vector<T>::load(a + c) * Vector<T>::load(b + c);
  T total = Vector<T>::sum(sum);
  for (; c < channels; ++c) total += a[c] * b[c];
  return total;
}

// out[e][h] = <a[h], b[column of e][h]> for the edges of one row.
template <typename T>
INLINE void pairs_in_row(int64_t begin, int64_t end, const int64_t* columns, const T* a, const T* b,
                         const T* scale_a, const T* scale_b, T* out, int64_t heads,
                         int64_t channels) {
  const int64_t width = heads * channels;
  for (int64_t e = begin; e < end; ++e) {
    if (e + kAhead < end) fetch(b + columns[e + kAhead] * width, width);
    for (int64_t h = 0; h < heads; ++h) {
      const T product = dot(a + h * channels, b + columns[e] * width + h * channels, channels);
      out[e * heads + h] =
          scale_a ? cosine(product, scale_a[h], scale_b[columns[e] * heads + h]) : product;
    }
  }
}

// `vectors` vectors of out = sum over the edges of one row of w[e] * x[column of e], one head.
template <typename T, int64_t vectors>
INLINE void sum_row(int64_t begin, int64_t end, const int64_t* columns, const int64_t* order,
                    const T* x, const T* w, T* out, int64_t width, int64_t heads) {
  typename Vector<T>::type sums[vectors] = {};
  for (int64_t e = begin; e < end; ++e) {
    if (e + kAhead < end) fetch(x + columns[e + kAhead] * width, vectors * Vector<T>::size);
    const T weight = w[(order ? order[e] : e) * heads];
    const T* row = x + columns[e] * width;
    for (int64_t v = 0; v < vectors; ++v)
      sums[v] += weight * Vector<T>::load(row + v * Vector<T>::size);
  }
  for (int64_t v = 0; v < vectors; ++v)
    std::memcpy(out + v * Vector<T>::size, &sums[v], kVectorBytes);
}

template <typename T>
INLINE void spread_to_row(int64_t begin, int64_t end, const int64_t* columns, const int64_t* order,
                          const T* x, const T* w, T* out, int64_t heads, int64_t channels) {
  constexpr int64_t size = Vector<T>::size;
  const int64_t width = heads * channels;
  for (int64_t h = 0; h < heads; ++h, x += channels, out += channels, ++w) {
    int64_t c = 0;
    for (; c + kVectors * size <= channels; c += kVectors * size)
      sum_row<T, kVectors>(begin, end, columns, order, x + c, w, out + c, width, heads);
    for (; c + size <= channels; c += size)
      sum_row<T, 1>(begin, end, columns, order, x + c, w, out + c, width, heads);
    for (; c < channels; ++c) {
      T total = 0;
      for (int64_t e = begin; e < end; ++e)
        total += w[(order ? order[e] : e) * heads] * x[columns[e] * width + c];
      out[c] = total;
    }
  }
}

// One row, for each kind of processor.

FOR_EACH_CPU void pairs(int64_t begin, int64_t end, const int64_t* columns, const float* a,
                        const float* b, const float* scale_a, const float* scale_b, float* out,
                        int64_t heads, int64_t channels) {
  pairs_in_row(begin, end, columns, a, b, scale_a, scale_b, out, heads, channels);
}

FOR_EACH_CPU void pairs(int64_t begin, int64_t end, const int64_t* columns, const double* a,
                        const double* b, const double* scale_a, const double* scale_b, double* out,
                        int64_t heads, int64_t channels) {
  pairs_in_row(begin, end, columns, a, b, scale_a, scale_b, out, heads, channels);
}

FOR_EACH_CPU void spread(int64_t begin, int64_t end, const int64_t* columns, const int64_t* order,
                         const float* x, const float* w, float* out, int64_t heads,
                         int64_t channels) {
  spread_to_row(begin, end, columns, order, x, w, out, heads, channels);
}

FOR_EACH_CPU void spread(int64_t begin, int64_t end, const int64_t* columns, const int64_t* order,
                         const double* x, const double* w, double* out, int64_t heads,
                         int64_t channels) {
  spread_to_row(begin, end, columns, order, x, w, out, heads, channels);
}

template <typename T>
void all_pairs(const T* a, const T* b, const T* scale_a, const T* scale_b, T* out,
               const int64_t* pointer, const int64_t* columns, int64_t rows, int64_t heads,
               int64_t channels) {
#pragma omp parallel for schedule(dynamic, kChunk)
  for (int64_t i = 0; i < rows; ++i)
    pairs(pointer[i], pointer[i + 1], columns, a + i * heads * channels, b,
          scale_a ? scale_a + i * heads : nullptr, scale_b, out, heads, channels);
}

template <typename T>
void spread_all(const T* x, const T* w, T* out, const int64_t* pointer, const int64_t* columns,
                const int64_t* order, int64_t rows, int64_t heads, int64_t channels) {
#pragma omp parallel for schedule(dynamic, kChunk)
  for (int64_t i = 0; i < rows; ++i)
    spread(pointer[i], pointer[i + 1], columns, order, x, w, out + i * heads * channels, heads,
           channels);
}

}  // namespace

extern "C" {

void csr_pairs_float(const float* a, const float* b, const float* scale_a, const float* scale_b,
                     float* out, const int64_t* pointer, const int64_t* columns, int64_t rows,
                     int64_t heads, int64_t channels) {
  all_pairs(a, b, scale_a, scale_b, out, pointer, columns, rows, heads, channels);
}

void csr_pairs_double(const double* a, const double* b, const double* scale_a,
                      const double* scale_b, double* out, const int64_t* pointer,
                      const int64_t* columns, int64_t rows, int64_t heads, int64_t channels) {
  all_pairs(a, b, scale_a, scale_b, out, pointer, columns, rows, heads, channels);
}

void csr_spread_float(const float* x, const float* w, float* out, const int64_t* pointer,
                      const int64_t* columns, const int64_t* order, int64_t rows, int64_t heads,
                      int64_t channels) {
  spread_all(x, w, out, pointer, columns, order, rows, heads, channels);
}

void csr_spread_double(const double* x, const double* w, double* out, const int64_t* pointer,
                       const int64_t* columns, const int64_t* order, int64_t rows, int64_t heads,
                       int64_t channels) {
  spread_all(x, w, out, pointer, columns, order, rows, heads, channels);
}

}  // extern "C"
