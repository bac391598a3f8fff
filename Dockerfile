# The broker as a static binary in an empty image, run by a user without rights.
#
#   docker build -t claudemesh-broker --build-arg VERSION="$(git describe --tags --always)" .
#   docker run -d --name mesh -p 127.0.0.1:7900:7900 -v mesh-data:/data claudemesh-broker
#   docker logs mesh                                        # the first start prints the admin token
#   docker exec mesh /claudemesh-broker token reset         # should it be lost

FROM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath \
      -ldflags "-s -w -X github.com/claudemesh/claudemesh/internal/version.version=$VERSION" \
      -o /out/claudemesh-broker ./cmd/claudemesh-broker
# What an empty image lacks: the user by name, the roots that obtaining a
# certificate needs, and a directory that this user may write.
RUN mkdir -p /out/etc/ssl/certs /data && chmod 700 /data \
 && echo 'broker:x:65532:65532::/data:/sbin/nologin' > /out/etc/passwd \
 && echo 'broker:x:65532:' > /out/etc/group \
 && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/

FROM scratch
COPY --from=build /out/ /
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
# In the environment rather than the command, so that backup, check and token
# reset, run by docker exec, find the same database.
ENV CLAUDEMESH_BROKER_DB=/data/mesh.db CLAUDEMESH_BROKER_LISTEN=:7900
VOLUME /data
EXPOSE 7900
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s --retries=3 CMD ["/claudemesh-broker", "health"]
ENTRYPOINT ["/claudemesh-broker"]
