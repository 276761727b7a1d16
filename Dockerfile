# syntax=docker/dockerfile:1

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin blobserve \
 && install -D target/release/blobserve /out/blobserve

FROM debian:bookworm-slim
# The system's trust roots are ours; SSL_CERT_FILE or registries.<host>.ca add to them.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 1000 blobserve \
 && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin blobserve \
 && install -d -o 1000 -g 1000 -m 0700 /mnt/cache/blobserve
COPY --from=build /out/blobserve /app/blobserve
USER 1000:1000
# The configuration decides; existing installations use these.
EXPOSE 32224 8086 9500
ENTRYPOINT ["/app/blobserve"]
CMD ["run", "/mnt/config/config.json"]
