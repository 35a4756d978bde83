# One image, one binary. The first stage builds, the second holds what runs: no compiler, no root.
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ libssl-dev make perl pkg-config zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package orloj

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libssl3 tzdata zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --home-dir /var/lib/orloj orloj
COPY --from=build /src/target/release/orloj /usr/local/bin/orloj
USER orloj
WORKDIR /var/lib/orloj
ENV ORLOJ_DATA_DIR=/var/lib/orloj
VOLUME /var/lib/orloj
ENTRYPOINT ["orloj"]
CMD ["help"]
