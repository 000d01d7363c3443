# syntax=docker/dockerfile:1
FROM python:3.12-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/tollgate
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY policies policies
COPY tokenizers_offline tokenizers_offline
RUN /opt/tollgate/bin/pip install .
# The tokenizers become part of the image: a running container fetches nothing.
RUN MODELS_DIR=/opt/models /opt/tollgate/bin/tollgate tokenizers fetch

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/tollgate --create-home tollgate
COPY --from=build /opt/tollgate /opt/tollgate
COPY --from=build /opt/models /opt/models
COPY config.yaml /etc/tollgate/config.yaml
ENV PATH=/opt/tollgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TOLLGATE_CONFIG=/etc/tollgate/config.yaml \
    TOLLGATE_STORE=sqlite:////var/lib/tollgate/tollgate.db \
    MODELS_DIR=/opt/models \
    PORT=8000
USER tollgate
WORKDIR /var/lib/tollgate
VOLUME /var/lib/tollgate
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=2)"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
