"""Requests and responses of models that run in Triton's Python backend; importable inside Triton only."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import triton_python_backend_utils as pb


class ResponseSender:
    """Sends the responses to one request, up to and including the final one.

    It works around four faults of python_backend 24.10:
    - `is_cancelled` after the final response ends Triton with a segmentation fault, so a lock keeps the two apart.
    - Triton does not unload a model while a response sender exists, so the sender is dropped with the final response.
    - Output arrays that were not requested are freed without the GIL, which ends the process (fixed by pull request
      390), so they are left out here.
    - An error in the final response never reaches a program that has called this model and read earlier responses, so
      the error is then sent before an empty final response.
    """

    def __init__(self, request: Any) -> None:
        self._sender, self._lock = request.get_response_sender(), threading.Lock()
        self._requested = set(request.requested_output_names())
        self._has_sent = False

    def send(self, tensors: dict[str, Any], final: bool = False) -> None:
        """Send one response of NumPy arrays. A final response may be empty."""
        outputs = [pb.Tensor(name, array) for name, array in tensors.items() if name in self._requested]
        self._send(pb.InferenceResponse(outputs), final)

    def fail(self, message: str, code: str | int = "INTERNAL") -> None:
        """Send an error as the final response. `code` is Triton's number, or its name, such as INVALID_ARG."""
        error = pb.TritonError(message, getattr(pb.TritonError, code) if isinstance(code, str) else code)
        self._send(pb.InferenceResponse(error=error), True)

    def cancelled(self) -> bool:
        """Whether the client has left before the final response was sent."""
        with self._lock:
            return bool(self._sender and self._sender.is_cancelled())

    def _send(self, response: Any, final: bool) -> None:
        with self._lock:
            sender = self._sender
            if final:
                self._sender = None
            if sender is None:
                return
            if final and self._has_sent and response.has_error():
                sender.send(response)
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                sender.send(response, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0)
            self._has_sent = True


def receive(requests: Sequence[Any]) -> Iterator[tuple[Any, dict[str, Any], ResponseSender]]:
    """(request, tensors as NumPy arrays, sender) of each request. An unreadable request gets an error response."""
    for request in requests:
        sender = ResponseSender(request)
        try:
            tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        except Exception as error:  # noqa: BLE001 (whatever Triton raises, the client gets it)
            sender.fail(f"the request's tensors cannot be read: {error}", "INVALID_ARG")
        else:
            yield request, tensors, sender
