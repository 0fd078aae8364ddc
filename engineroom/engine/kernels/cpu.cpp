// The CPU kernels, as functions that the compiled engine calls like PyTorch's own operators: `packed_linear` is in
// cpu_linear.h, `paged_attention` in cpu_attention.h. cpu.py compiles this file.

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "cpu_attention.h"
#include "cpu_linear.h"

namespace {

template <class T>
T* data(AtenTensorHandle tensor) {
  void* pointer;
  aoti_torch_get_data_ptr(tensor, &pointer);
  return static_cast<T*>(pointer);
}

const int64_t* sizes(AtenTensorHandle tensor) {
  int64_t* pointer;
  aoti_torch_get_sizes(tensor, &pointer);
  return pointer;
}

int32_t dtype(AtenTensorHandle tensor) {
  int32_t value;
  aoti_torch_get_dtype(tensor, &value);
  return value;
}

}  // namespace

// x float32 [rows, in_features], weight float32 or bfloat16 [panels, in_features, 16], both contiguous; the result is
// float32 [rows, panels * 16].
extern "C" AOTITorchError aoti_torch_cpu_packed_linear(AtenTensorHandle x, AtenTensorHandle weight,
                                                       AtenTensorHandle* result) {
  const int64_t rows = sizes(x)[0], in_features = sizes(x)[1], panels = sizes(weight)[0];
  const int64_t shape[] = {rows, panels * PANEL_WIDTH}, strides[] = {panels * PANEL_WIDTH, 1};
  if (auto error = aoti_torch_empty_strided(2, shape, strides, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(),
                                            0, result))
    return error;
  if (dtype(weight) == aoti_torch_dtype_bfloat16())
    linear(data<float>(x), rows, in_features, data<BFloat16>(weight), data<float>(*result), panels);
  else
    linear(data<float>(x), rows, in_features, data<float>(weight), data<float>(*result), panels);
  return AOTI_TORCH_SUCCESS;
}

// q [num_tokens, num_heads, head_size]; k_cache, v_cache [num_blocks, tokens_per_block, num_kv_heads, head_size], with
// q's dtype; int64: block_tables [num_sequences, max_blocks_per_sequence], sequence_indices and positions [num_tokens].
// All are contiguous. The result has the shape and dtype of q.
extern "C" AOTITorchError aoti_torch_cpu_paged_attention(AtenTensorHandle q, AtenTensorHandle k_cache,
                                                         AtenTensorHandle v_cache, AtenTensorHandle block_tables,
                                                         AtenTensorHandle sequence_indices, AtenTensorHandle positions,
                                                         AtenTensorHandle* result) {
  const int64_t num_tokens = sizes(q)[0], num_heads = sizes(q)[1], head_size = sizes(q)[2];
  const Shape kv{num_heads, sizes(k_cache)[2], head_size, sizes(k_cache)[1], sizes(block_tables)[1]};
  const int64_t shape[] = {num_tokens, num_heads, head_size}, strides[] = {num_heads * head_size, head_size, 1};
  if (auto error = aoti_torch_empty_strided(3, shape, strides, dtype(q), aoti_torch_device_type_cpu(), 0, result))
    return error;
  auto run = [&]<class T>(T*) {
    attention(kv, data<T>(q), data<T>(k_cache), data<T>(v_cache), data<int64_t>(block_tables),
              data<int64_t>(sequence_indices), data<int64_t>(positions), num_tokens, data<T>(*result));
  };
  if (dtype(q) == aoti_torch_dtype_bfloat16())
    run((BFloat16*)nullptr);
  else if (dtype(q) == aoti_torch_dtype_float16())
    run((Half*)nullptr);
  else
    run((float*)nullptr);
  return AOTI_TORCH_SUCCESS;
}
