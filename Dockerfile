# ser_bench on the CPU, as an unprivileged user. Runs are written to /work.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home ser \
    && mkdir /work \
    && chown ser /work

WORKDIR /opt/ser_bench
COPY pyproject.toml constraints.txt README.md LICENSE run.py Makefile ./
COPY conf ./conf
COPY experiments ./experiments
COPY src ./src
RUN pip install --no-cache-dir --constraint constraints.txt torch torchaudio --index-url https://download.pytorch.org/whl/cpu \
    && pip install --no-cache-dir --constraint constraints.txt '.[demo]'

USER ser
WORKDIR /work
VOLUME /work
ENTRYPOINT ["ser-bench"]
CMD ["--help"]
