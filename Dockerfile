# syntax=docker/dockerfile:1

# The same Debian release as the run-time image, so that the binary finds the C library it was linked with.
FROM docker.io/library/rust:1.95-trixie AS build
WORKDIR /build

# librdkafka, its OpenSSL and jemalloc are compiled from source: gcc, g++, make and perl, which the image has.
# jemalloc fixes the page size when it is built, and kernels for ARM have pages of up to 64 KiB (2^16 bytes).
# The stage runs on the architecture that it builds for, which dpkg tells also where TARGETARCH is not set.
RUN if [ "$(dpkg --print-architecture)" = arm64 ]; then \
      printf '[env]\nJEMALLOC_SYS_WITH_LG_PAGE = "16"\n' > "$CARGO_HOME/config.toml"; \
    fi
# The dependencies are built against an empty crate, so that this layer lasts until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin kafka-inlet \
    && rm -r src

# Cargo goes by the time of change, and the files may be older than the empty crate.
COPY src src
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin kafka-inlet

# A new volume that is mounted there takes its owner from it.
RUN mkdir /spool

# The C library, the system's certificates and a user that is not root; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="kafka-inlet" \
      org.opencontainers.image.description="HTTP in, Kafka out" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /build/target/release/kafka-inlet /kafka-inlet
COPY --from=build --chown=65532:65532 /spool /spool
# By number: Kubernetes' runAsNonRoot cannot tell whether a name is root.
USER 65532:65532
EXPOSE 4000
STOPSIGNAL SIGTERM
# Liveness: it asks this process, not Kafka. GET /ready is the one that asks whether Kafka answers.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["/kafka-inlet", "health"]
ENTRYPOINT ["/kafka-inlet"]
