# lookonce serve on a CPU: docker build -t lookonce-serve .
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY src src
# The versions of the lock file, without the packages of development.
RUN grep -E '^[a-z0-9._-]+==' requirements.lock | sed 's/ *\\$//' >pins.txt \
    && python -m venv /opt/lookonce \
    && /opt/lookonce/bin/pip install --no-cache-dir --constraint pins.txt '.[serve]'

FROM python:3.12-slim
RUN useradd --system --uid 10001 --create-home lookonce && install -d /models && install -d -o lookonce /cache
COPY --from=build /opt/lookonce /opt/lookonce
ENV PATH=/opt/lookonce/bin:$PATH LOOKONCE_CACHE=/cache LOOKONCE_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1
USER lookonce
VOLUME /cache
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# A token is needed (LOOKONCE_TOKEN), or the option --no-token.
ENTRYPOINT ["lookonce", "serve", "--host", "0.0.0.0"]
CMD ["model=/models/model"]
