# attnshift and its studio.
#   docker build -t attnshift .                                     on the CPU
#   docker build -t attnshift:cuda --build-arg TORCH=cu130 .        on an NVIDIA GPU
# docs/installation.md says how to run it.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS installed
# The wheels of torch: cpu, or the version of CUDA that they bring along.
ARG TORCH=cpu
RUN pip install --no-cache-dir "uv>=0.9,<1"
WORKDIR /source
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY src src
RUN uv venv /opt/attnshift && \
    uv pip install --no-cache --python /opt/attnshift/bin/python --torch-backend "${TORCH}" \
        --constraint requirements.lock ".[studio]"

FROM python:${PYTHON}-slim
COPY --from=installed /opt/attnshift /opt/attnshift
ENV PATH=/opt/attnshift/bin:$PATH \
    HF_HOME=/work/.cache/huggingface \
    TORCH_HOME=/work/.cache/torch
RUN useradd --create-home --uid 1000 user && mkdir /work && chown 1000 /work
USER 1000
WORKDIR /work
EXPOSE 7860
ENTRYPOINT ["attnshift"]
CMD ["demo", "--out", "demo"]
