# A rerank server with the model in the image: no download at start, no writes while it runs.
#
#   docker build -t flashrank-lite .
#   docker run -p 8000:8000 -e FLASHRANK_LITE_API_KEY=secret flashrank-lite
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY flashrank_lite ./flashrank_lite
RUN python -m venv /opt/flashrank-lite \
    && /opt/flashrank-lite/bin/pip install --no-cache-dir ".[server]"

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin flashrank
COPY --from=build /opt/flashrank-lite /opt/flashrank-lite
USER 10001
ENV PATH=/opt/flashrank-lite/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLASHRANK_LITE_HOST=0.0.0.0 \
    FLASHRANK_LITE_PORT=8000
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['FLASHRANK_LITE_PORT'] + '/ready', timeout=2)"]
# Without a key it does not start: set FLASHRANK_LITE_API_KEY, or add --no-auth.
ENTRYPOINT ["flashrank-lite", "serve"]
