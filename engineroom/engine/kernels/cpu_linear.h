// y = x @ w with packed weights, in float32, after "Anatomy of high-performance matrix multiplication" (Goto and van de
// Geijn, 2008). Comments give shapes in axis order.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace {

using Vec = at::vec::Vectorized<float>;
constexpr int LANES = Vec::size();
constexpr int PANEL_WIDTH = 16, PANEL_VECTORS = PANEL_WIDTH / LANES;  // output features of a panel
constexpr int ROWS = LANES == 16 ? 12 : 6;  // rows of x in a tile: as many as fit into registers
constexpr int64_t SLICE_DEPTH = 1024;       // in_features of a slice of a panel, 64 KiB in float32
constexpr int64_t BLOCK_VALUES = 32768;     // values of a block of x, 128 KiB
constexpr int64_t MIN_WIDENED_ROWS = 12;    // from this many rows of x, a bfloat16 slice is converted only once

typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
using at::BFloat16;
using at::Half;

inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }

inline Floats load(const BFloat16* p) {
  return (Floats)(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16);
}

inline float sum(Vec x) {
  return at::vec::vec_reduce_all<float>([](Vec& a, Vec& b) { return a + b; }, x);
}

inline float sum(const Floats& x) { return sum(Vec::loadu(&x)); }

inline Floats& vector_at(float* p) { return *reinterpret_cast<Floats*>(p); }

// y += x @ w for COUNT rows: x [COUNT, depth] with x_stride from row to row, w [depth, PANEL_WIDTH] with w_stride,
// y [COUNT, PANEL_WIDTH] with y_stride. The sums stay in registers. STEPS independent sums hide the latency of an
// addition when there are few rows. PREFETCH: each row of w also prefetches prefetch_step bytes from `prefetch` on.
// PANELS: this many panels, panel_stride values apart, share each read of x; w is then [PANELS, depth, PANEL_WIDTH].
template <int COUNT, int STEPS, bool PREFETCH, int PANELS = 1, class Weight>
inline void multiply_tile(const float* x, int64_t x_stride, int64_t depth, const Weight* w, int64_t w_stride, float* y,
                          int64_t y_stride, const char* prefetch, int64_t prefetch_step, int64_t panel_stride = 0) {
  constexpr int vectors = PANELS * PANEL_VECTORS;
  Floats sums[STEPS][COUNT][vectors] = {};
  for (int64_t k = 0; k < depth; k += STEPS)
    for (int s = 0; s < STEPS; s++) {
      if constexpr (PREFETCH) __builtin_prefetch(prefetch + (k + s) * prefetch_step);
      Floats weights[vectors];
      for (int i = 0; i < vectors; i++)
        weights[i] = load(w + i / PANEL_VECTORS * panel_stride + (k + s) * w_stride + i % PANEL_VECTORS * LANES);
      for (int row = 0; row < COUNT; row++)
        for (int i = 0; i < vectors; i++) sums[s][row][i] += x[row * x_stride + k + s] * weights[i];
    }
  for (int row = 0; row < COUNT; row++)
    for (int i = 0; i < vectors; i++) {
      for (int s = 1; s < STEPS; s++) sums[0][row][i] += sums[s][row][i];
      vector_at(y + row * y_stride + i * LANES) += sums[0][row][i];
    }
}

// multiply_tile for any number of rows: x [rows, depth], y [rows, PANEL_WIDTH].
template <bool PREFETCH = false, int COUNT = ROWS, class Weight>
inline void multiply_panel(const float* x, int64_t x_stride, int64_t rows, int64_t depth, const Weight* w,
                           int64_t w_stride, float* y, int64_t y_stride, const char* prefetch = nullptr,
                           int64_t prefetch_step = 0) {
  constexpr int steps = COUNT == 1 ? 8 / PANEL_VECTORS : COUNT == 2 ? 4 / PANEL_VECTORS : 1;
  for (; rows >= COUNT; rows -= COUNT) {
    if (COUNT == ROWS && rows == 2 * ROWS - 2) break;  // two tiles of ROWS - 1 are faster than ROWS and a small one
    if (depth % steps)
      multiply_tile<COUNT, 1, PREFETCH>(x, x_stride, depth, w, w_stride, y, y_stride, prefetch, prefetch_step);
    else
      multiply_tile<COUNT, steps, PREFETCH>(x, x_stride, depth, w, w_stride, y, y_stride, prefetch, prefetch_step);
    x += COUNT * x_stride;
    y += COUNT * y_stride;
    prefetch += depth * prefetch_step;
  }
  if constexpr (COUNT > 1)
    if (rows)
      multiply_panel<PREFETCH, COUNT - 1>(x, x_stride, rows, depth, w, w_stride, y, y_stride, prefetch, prefetch_step);
}

// multiply_panel for two panels at once, panel_stride values apart: w [2, depth, PANEL_WIDTH],
// y [rows, 2 * PANEL_WIDTH].
template <class Weight>
inline void multiply_two_panels(const float* x, int64_t x_stride, int64_t rows, int64_t depth, const Weight* w,
                                int64_t panel_stride, float* y, int64_t y_stride) {
  for (; rows >= ROWS; rows -= ROWS, x += ROWS * x_stride, y += ROWS * y_stride)
    multiply_tile<ROWS, 1, false, 2>(x, x_stride, depth, w, PANEL_WIDTH, y, y_stride, nullptr, 0, panel_stride);
  for (int i = 0; i < 2; i++)
    multiply_panel(x, x_stride, rows, depth, w + i * panel_stride, PANEL_WIDTH, y + i * PANEL_WIDTH, y_stride);
}

// x [rows, in_features], weight [panels, in_features, PANEL_WIDTH], y [rows, panels * PANEL_WIDTH].
// With few rows, reading the weights takes the time: all rows are multiplied with one slice of a panel while the next
// slice is prefetched. With many rows and panels no wider than a vector, reading x takes the time: two panels share
// each read of x, and all panels use a block of rows while it is in the cache.
template <class Weight>
void linear(const float* x, int64_t rows, int64_t in_features, const Weight* weight, float* y, int64_t panels) {
  const bool few_rows = rows > 1 && rows <= 8 * ROWS;
  const bool many_rows = PANEL_VECTORS == 1 && rows > 8 * ROWS;
  const int64_t depth = few_rows ? std::min(SLICE_DEPTH, in_features) : in_features;
  const int64_t prefetch_step = PANEL_WIDTH * sizeof(Weight) / ((rows + ROWS - 1) / ROWS);
  const int64_t out_features = panels * PANEL_WIDTH;
  const int64_t panels_at_once = many_rows ? 2 : 1;
  const int64_t block_rows =
      many_rows ? std::max<int64_t>(1, BLOCK_VALUES / in_features / ROWS) * ROWS : std::max<int64_t>(1, rows);
#pragma omp parallel
  {
    const bool widen = sizeof(Weight) == 2 && rows >= MIN_WIDENED_ROWS;
    std::vector<float> widened(widen ? panels_at_once * depth * PANEL_WIDTH : 0);
#pragma omp for collapse(2)
    for (int64_t first_row = 0; first_row < rows; first_row += block_rows)
      for (int64_t panel = 0; panel < panels; panel += panels_at_once) {
        const int64_t count = std::min(panels_at_once, panels - panel);
        const int64_t height = std::min(block_rows, rows - first_row);
        const float* x_block = x + first_row * in_features;
        float* y_block = y + first_row * out_features + panel * PANEL_WIDTH;
        for (int64_t row = 0; row < height; row++)
          std::fill_n(y_block + row * out_features, count * PANEL_WIDTH, 0.0f);
        for (int64_t k = 0; k < in_features; k += depth) {
          const int64_t length = std::min(depth, in_features - k), size = length * PANEL_WIDTH;
          const Weight* slice = weight + (panel * in_features + k) * PANEL_WIDTH;
          auto multiply = [&](const auto* w) {
            if (few_rows)
              multiply_panel<true>(x + k, in_features, rows, length, w, PANEL_WIDTH, y_block, out_features,
                                   (const char*)(slice + size), prefetch_step);
            else if (count == 2)
              multiply_two_panels(x_block, in_features, height, in_features, w, size, y_block, out_features);
            else
              multiply_panel(x_block, in_features, height, in_features, w, PANEL_WIDTH, y_block, out_features);
          };
          if (widened.empty()) {
            multiply(slice);
          } else {
            for (int64_t i = 0; i < count * size; i += LANES) vector_at(&widened[i]) = load(slice + i);
            multiply(widened.data());
          }
        }
      }
  }
}

}  // namespace
