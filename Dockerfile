# ser_bench on the CPU, as an unprivileged user. Runs are written to the working directory, /work.
FROM python:3.11-slim

# make is for `make demo`. Its version does not change a result, so that it is not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 ser \
    && mkdir /work /opt/ser_bench \
    && chown ser /work /opt/ser_bench

USER 10001
WORKDIR /opt/ser_bench
COPY --chown=10001 pyproject.toml constraints.txt README.md LICENSE run.py Makefile ./
COPY --chown=10001 conf ./conf
COPY --chown=10001 experiments ./experiments
COPY --chown=10001 src ./src
# PyTorch first, from the index of its builds for the CPU: the one on PyPI brings several GB for GPUs.
RUN python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt torch torchaudio \
       --index-url https://download.pytorch.org/whl/cpu \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[demo]' \
    && touch .venv/.installed

ENV PATH="/opt/ser_bench/.venv/bin:$PATH"
WORKDIR /work
VOLUME /work
ENTRYPOINT ["ser-bench"]
CMD ["--help"]
