"""The way back of one request, for models of the Python backend; importable inside Triton only."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import triton_python_backend_utils as pb


class Sender:
    """Responses until the final one. Triton ends with a segmentation fault when `is_cancelled` is asked of a request
    that has had its final response (python_backend of 24.10), so the two exclude each other here. The way back is let
    go with the final response: while it is held, Triton does not unload the model. Outputs that nobody asked for are
    left out here: 24.10 deletes their arrays without holding the GIL, and dies of it (mended in its pull request 390).
    """

    def __init__(self, request: Any) -> None:
        self._sender, self._lock = request.get_response_sender(), threading.Lock()
        self._wanted = set(request.requested_output_names())

    def send(self, tensors: dict[str, Any], final: bool = False) -> None:
        """One response of NumPy arrays; without any it only says that it is the final one."""
        made = [pb.Tensor(name, array) for name, array in tensors.items() if name in self._wanted]
        self._send(pb.InferenceResponse(made), final)

    def fail(self, message: str, code: str | int = "INTERNAL") -> None:
        """The final response, an error: `code` is Triton's, or a name of one such as INVALID_ARG."""
        error = pb.TritonError(message, getattr(pb.TritonError, code) if isinstance(code, str) else code)
        self._send(pb.InferenceResponse(error=error), True)

    def cancelled(self) -> bool:
        """Whether the client has gone, while the final response is due."""
        with self._lock:
            return bool(self._sender and self._sender.is_cancelled())

    def _send(self, response: Any, final: bool) -> None:
        with self._lock:
            sender, self._sender = self._sender, None if final else self._sender
            if sender:
                sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)


def receive(requests: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any], Sender]]:
    """(request id, tensors as NumPy arrays, sender) of each; one that cannot be read is answered here."""
    for request in requests:
        sender = Sender(request)
        try:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        except Exception as error:
            sender.fail(f"the request's tensors cannot be read: {error}", "INVALID_ARG")
        else:
            yield request.request_id(), tensors, sender
