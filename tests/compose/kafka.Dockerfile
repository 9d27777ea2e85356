# Replaces apache/kafka if that image cannot be pulled: the same broker, configured by the same code from the same
# variables (kafka.docker.KafkaDockerWrapper, which is in the jars). In: Kafka's jars as context. Out: a KRaft broker.
ARG BASE
FROM ${BASE}
# Any version that the distribution has is good enough.
# hadolint ignore=DL3008
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends default-jre-headless \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 1000 -g 1000 /var/lib/kafka/data /opt/kafka/config /opt/kafka/defaults /mnt/shared/config \
    && touch /opt/kafka/defaults/server.properties /opt/kafka/defaults/log4j2.yaml /opt/kafka/defaults/tools-log4j2.yaml
COPY . /opt/kafka/libs
USER 1000
VOLUME /var/lib/kafka/data
CMD ["bash", "-c", "java -cp '/opt/kafka/libs/*' kafka.docker.KafkaDockerWrapper setup --default-configs-dir /opt/kafka/defaults --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config && exec java ${KAFKA_HEAP_OPTS} -XX:+UseSerialGC -cp '/opt/kafka/libs/*' kafka.Kafka /opt/kafka/config/server.properties"]
