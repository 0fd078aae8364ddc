# Engine Room in a container; deploy/README.md says how to run it.
#   docker build --target cpu --tag engineroom:cpu .    any x86-64 machine: the same environment as `make lab`
#   docker build --target gpu --tag engineroom:gpu .    NVIDIA's Triton and TensorRT-LLM, and vLLM for CUDA
#
# A network of your own: --build-arg PIP_FIND_LINKS=FOLDER takes torch from a folder of wheels mounted into the build,
# SSL_CERT_FILE and PIP_CERT name a bundle of certificates mounted the same way.
ARG CPU_BASE=debian:bookworm-slim
ARG GPU_BASE=nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3

FROM ${CPU_BASE} AS cpu
# tini takes in orphans of stopped servers; libnuma1 is what vLLM's CPU kernels link to; git is for the development
# container
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
       ca-certificates curl g++ git libnuma1 make python3 python3-dev python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home learner \
    && install --directory --owner 1000 --group 1000 /opt/engineroom /data
USER 1000:1000
WORKDIR /opt/engineroom

# the environment comes before the lessons: editing a lesson installs nothing again
COPY --chown=1000:1000 bootstrap.py pyproject.toml ./
COPY --chown=1000:1000 tools/__init__.py tools/
COPY --chown=1000:1000 tools/setup tools/setup
COPY --chown=1000:1000 requirements requirements
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG SSL_CERT_FILE
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 python3 bootstrap.py
COPY --chown=1000:1000 . .

# a learner's work is below /data, in a volume; a new container finds it again
ENV PATH=/opt/engineroom/.venv/bin:$PATH \
    ENGINEROOM_HOME=/data/home \
    HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 8888
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["curl", "--fail", "--silent", "--noproxy", "*", "http://127.0.0.1:8888/api"]
# JupyterLab generates a token and prints it, unless JUPYTER_TOKEN sets one
ENTRYPOINT ["tini", "--"]
CMD ["engineroom", "lab", "--work", "/data/work", "--host", "0.0.0.0", "--no-browser"]

# 2026-11-21: written after NVIDIA's and vLLM's published facts, linted by hadolint, not built and not run by us.
FROM ${GPU_BASE} AS gpu
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
       ca-certificates curl g++ libnuma1 make python3-venv tini \
    && rm -rf /var/lib/apt/lists/* \
    && { id 1000 || useradd --uid 1000 learner; } \
    && install --directory --owner 1000 --group 1000 /opt/engineroom /opt/vllm /opt/python /data /home/learner
USER 1000:1000
WORKDIR /opt/engineroom
ENV HOME=/home/learner \
    UV_PYTHON_INSTALL_DIR=/opt/python

COPY --chown=1000:1000 bootstrap.py pyproject.toml ./
COPY --chown=1000:1000 tools/__init__.py tools/
COPY --chown=1000:1000 tools/setup tools/setup
COPY --chown=1000:1000 requirements requirements
COPY --chown=1000:1000 deploy/vllm-cuda.sh deploy/vllm-cuda.sh
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG SSL_CERT_FILE
RUN export PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 \
    && python3 bootstrap.py \
    && deploy/vllm-cuda.sh /opt/vllm
COPY --chown=1000:1000 . .

ENV PATH=/opt/engineroom/.venv/bin:$PATH:/opt/vllm/bin \
    ENGINEROOM_HOME=/data/home \
    HF_HOME=/data/huggingface
VOLUME /data
EXPOSE 8888
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["curl", "--fail", "--silent", "--noproxy", "*", "http://127.0.0.1:8888/api"]
ENTRYPOINT ["tini", "--", "/opt/nvidia/nvidia_entrypoint.sh"]
CMD ["engineroom", "lab", "--work", "/data/work", "--host", "0.0.0.0", "--no-browser"]
