FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY plugins plugins
RUN python -m venv /opt/anabranch \
    && /opt/anabranch/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home anabranch
COPY --from=build /opt/anabranch /opt/anabranch
ENV PATH=/opt/anabranch/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
ENTRYPOINT ["anabranch"]
CMD ["--help"]
