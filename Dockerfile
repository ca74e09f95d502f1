FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY fetcher fetcher
RUN python -m venv /opt/fetcher \
    && /opt/fetcher/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home --home-dir /work fetcher
COPY --from=build /opt/fetcher /opt/fetcher
ENV PATH="/opt/fetcher/bin:$PATH" PYTHONUNBUFFERED=1
# Config, state and output are looked for here: mount a folder.
WORKDIR /work
USER 10001
# In exec form, so that SIGTERM reaches fetcher itself, which then drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["fetcher"]
CMD ["--help"]
