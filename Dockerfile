# docker build -t external-ip-controller:0.1.0 .
# A static binary and nothing else. Builds for the platform it runs on, or for another by --platform (emulated).

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# glibc linked statically (crt-static), because the final stage has no libraries. `--target` is named although it is
# the machine's own: without it the flags would apply to build scripts and macros too, which cannot be static. Packed
# relocations make the program half a megabyte smaller.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    target="$(uname -m)-unknown-linux-gnu" \
 && RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs" \
    cargo build --release --locked --package external-ip-controller --bin external-ip-controller --target "$target" \
 && install -D -m 0555 "target/$target/release/external-ip-controller" /out/external-ip-controller

# What is shipped. Only these instructions are used here: FROM scratch, COPY --from, USER, ENV, LABEL, EXPOSE, WORKDIR,
# ENTRYPOINT and CMD in JSON form. The project's own packer builds this stage where there is no Docker and refuses others.
FROM scratch
LABEL org.opencontainers.image.title="external-ip-controller" \
      org.opencontainers.image.description="Gives every pod of a clustered data store its own external address and publishes the map" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /out/external-ip-controller /external-ip-controller
# glibc's allocator: what a list of thousands of pods takes for a moment goes back to the system, and the two threads of a
# small container share what they have freed. docs/benchmarks.md says what this saves.
ENV GLIBC_TUNABLES=glibc.malloc.arena_max=2:glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=262144
# Nobody's account anywhere; numeric, so that runAsNonRoot can be checked without a passwd file.
USER 65532:65532
# mapping, admission, admin
EXPOSE 8888/tcp 8443/tcp 8080/tcp
ENTRYPOINT ["/external-ip-controller"]
CMD ["run"]
