// Attention over the paged KV cache, in place: an online softmax in float32, KV block by KV block, after
// "Flash-Decoding for long-context inference" (Dao et al., 2023). Comments give shapes in axis order.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cpu_linear.h"

namespace {

constexpr int64_t QUERIES = 16;  // query rows that share one read of a KV block
constexpr float MASKED = -1e30f;

// The keys or values of one KV head in one block, as float32 [tokens, padded_size]. They are copied, unless they are
// float32 already and need no padding. `stride` is the distance between tokens: on entry in `source`, on return in the
// result.
template <class T>
const float* fetch(const T* source, int64_t tokens, int64_t& stride, int64_t head_size, float* copy,
                   int64_t padded_size) {
  if constexpr (std::is_same_v<T, float>)
    if (head_size == padded_size) return source;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t i = 0; i < head_size; i++) copy[t * padded_size + i] = source[t * stride + i];
  stride = padded_size;
  return copy;
}

// scores[row] = q[row] · key, for q [rows, size] and key [size]; scores has score_stride from row to row.
template <int COUNT = 4>
void dot_products(const float* q, int64_t rows, const float* key, int64_t size, float* scores, int64_t score_stride) {
  for (; rows >= COUNT; rows -= COUNT, q += COUNT * size, scores += COUNT * score_stride) {
    Floats sums[COUNT] = {};
    for (int64_t i = 0; i < size; i += LANES) {
      Floats k = load(key + i);
      for (int row = 0; row < COUNT; row++) sums[row] += load(q + row * size + i) * k;
    }
    for (int row = 0; row < COUNT; row++) {
      scores[row * score_stride] = sum(sums[row]);
    }
  }
  if constexpr (COUNT > 1)
    if (rows) dot_products<COUNT - 1>(q, rows, key, size, scores, score_stride);
}

// One row's part of the online softmax: scores [length] become weights, and row_sum grows by their sum. When the
// maximum rises, row_sum and y [size], which belong to the old maximum, are scaled down.
void update_softmax(float* scores, int64_t length, float& row_max, float& row_sum, float* y, int64_t size) {
  const float new_max = std::max(row_max, *std::max_element(scores, scores + length));
  const float rescale = std::exp(row_max - new_max);
  Vec weight_sum(0.0f);
  for (int64_t t = 0; t < length; t += LANES) {
    Vec weight = (Vec::loadu(scores + t) - Vec(new_max)).exp();
    weight.store(scores + t);
    weight_sum = weight_sum + weight;
  }
  for (int64_t i = 0; i < size; i += LANES) vector_at(y + i) *= rescale;
  row_sum = row_sum * rescale + sum(weight_sum);
  row_max = new_max;
}

struct Shape {
  int64_t num_heads, num_kv_heads, head_size, tokens_per_block, max_blocks_per_sequence;
  int64_t group() const { return num_heads / num_kv_heads; }
  int64_t padded_size() const { return (head_size + PANEL_WIDTH - 1) / PANEL_WIDTH * PANEL_WIDTH; }
  int64_t padded_tokens() const { return (tokens_per_block + PANEL_WIDTH - 1) / PANEL_WIDTH * PANEL_WIDTH; }
};

// Float32 buffers of one thread. A row is one query head of one token.
struct Scratch {
  std::vector<float> q, y;             // [rows, padded_size]
  std::vector<float> scores;           // [rows, padded_tokens]
  std::vector<float> keys, values;     // [padded_tokens, padded_size]
  std::vector<float> row_max, row_sum;  // [rows]
  Scratch(const Shape& shape, int64_t rows)
      : q(rows * shape.padded_size()),
        y(q.size()),
        scores(rows * shape.padded_tokens()),
        keys(shape.padded_tokens() * shape.padded_size()),
        values(keys.size()),
        row_max(rows),
        row_sum(rows) {}
};

// `count` tokens of one sequence, and the query heads of one KV head. q, y [count, num_heads, head_size];
// k_cache, v_cache [num_blocks, tokens_per_block, num_kv_heads, head_size]; block_table [max_blocks_per_sequence];
// positions [count].
template <class T>
void attend(const Shape& shape, const T* q, const T* k_cache, const T* v_cache, const int64_t* block_table,
            const int64_t* positions, int64_t count, int64_t kv_head, T* y, Scratch& scratch) {
  const int64_t group = shape.group(), rows = count * group, head_size = shape.head_size;
  const int64_t padded_size = shape.padded_size(), padded_tokens = shape.padded_tokens();
  const int64_t token_stride = shape.num_kv_heads * head_size;
  auto offset = [&](int64_t row) {  // of a row in q and y
    return (row / group * shape.num_heads + kv_head * group + row % group) * head_size;
  };
  const float scale = 1 / std::sqrt(float(head_size));
  std::fill(scratch.y.begin(), scratch.y.end(), 0.0f);
  std::fill(scratch.row_sum.begin(), scratch.row_sum.end(), 0.0f);
  std::fill(scratch.row_max.begin(), scratch.row_max.end(), MASKED);
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < head_size; i++) scratch.q[row * padded_size + i] = scale * float(q[offset(row) + i]);
  const int64_t last = *std::max_element(positions, positions + count);
  for (int64_t first = 0; first <= last; first += shape.tokens_per_block) {
    const int64_t tokens = std::min(shape.tokens_per_block, last + 1 - first);
    const int64_t block_id = block_table[first / shape.tokens_per_block];
    const int64_t start = (block_id * shape.tokens_per_block * shape.num_kv_heads + kv_head) * head_size;
    int64_t key_stride = token_stride, value_stride = token_stride;
    const float* keys = fetch(k_cache + start, tokens, key_stride, head_size, scratch.keys.data(), padded_size);
    const float* values = fetch(v_cache + start, tokens, value_stride, head_size, scratch.values.data(), padded_size);
    for (int64_t t = 0; t < tokens; t++)
      dot_products(scratch.q.data(), rows, keys + t * key_stride, padded_size, &scratch.scores[t], padded_tokens);
    for (int64_t row = 0; row < rows; row++) {
      float* scores = &scratch.scores[row * padded_tokens];
      const int64_t visible = std::clamp<int64_t>(positions[row / group] + 1 - first, 0, tokens);
      std::fill(scores + visible, scores + padded_tokens, MASKED);
      update_softmax(scores, padded_tokens, scratch.row_max[row], scratch.row_sum[row], &scratch.y[row * padded_size],
                     padded_size);
    }
    for (int64_t i = 0; i < padded_size; i += PANEL_WIDTH)
      multiply_panel(scratch.scores.data(), padded_tokens, rows, tokens, values + i, value_stride, &scratch.y[i],
                     padded_size);
  }
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < head_size; i++)
      y[offset(row) + i] = scratch.y[row * padded_size + i] / scratch.row_sum[row];
}

// q, y [num_tokens, num_heads, head_size]; block_tables [num_sequences, max_blocks_per_sequence];
// sequence_indices, positions [num_tokens]. A chunk is up to QUERIES / group neighbouring tokens of one sequence.
template <class T>
void attention(const Shape& shape, const T* q, const T* k_cache, const T* v_cache, const int64_t* block_tables,
               const int64_t* sequence_indices, const int64_t* positions, int64_t num_tokens, T* y) {
  const int64_t max_chunk = std::max<int64_t>(1, QUERIES / shape.group());
  std::vector<int64_t> starts;
  for (int64_t token = 0; token < num_tokens; token++)
    if (!token || sequence_indices[token] != sequence_indices[token - 1] || token - starts.back() == max_chunk)
      starts.push_back(token);
  const int64_t chunks = starts.size();
  starts.push_back(num_tokens);
#pragma omp parallel
  {
    Scratch scratch(shape, max_chunk * shape.group());
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t chunk = 0; chunk < chunks; chunk++)
      for (int64_t kv_head = 0; kv_head < shape.num_kv_heads; kv_head++) {
        const int64_t first = starts[chunk], offset = first * shape.num_heads * shape.head_size;
        const int64_t* block_table = block_tables + sequence_indices[first] * shape.max_blocks_per_sequence;
        attend(shape, q + offset, k_cache, v_cache, block_table, positions + first, starts[chunk + 1] - first, kv_head,
               y + offset, scratch);
      }
  }
}

}  // namespace
