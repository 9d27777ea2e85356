{{/* What values.schema.json cannot see: values that do not go together. Each failure says what to set instead. */}}

{{- define "flagpost.check" -}}
{{- include "flagpost.check.secrets" . -}}
{{- include "flagpost.check.ports" . -}}
{{- include "flagpost.check.replicas" . -}}
{{- with .Values.consumer.autoscaling -}}
{{- if and (eq .kind "keda") (not .keda.serverAddress) -}}
{{- fail "consumer.autoscaling.keda.serverAddress is required with consumer.autoscaling.kind: keda; give Prometheus's URL" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.gateway.ingress.enabled (not .Values.gateway.ingress.hosts) -}}
{{- fail "gateway.ingress.hosts is required with gateway.ingress.enabled; list the host names" -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.secrets" -}}
{{- if and .Values.secrets.existingSecret .Values.secrets.inline -}}
{{- fail "secrets.existingSecret and secrets.inline are both given; leave one out" -}}
{{- end -}}
{{- with .Values.secrets.inline -}}
{{- $inline := . -}}
{{- range include "flagpost.secretKeys" $ | fromJsonArray -}}
{{- if not (hasKey $inline .) -}}
{{- fail (printf "secrets.inline lacks %s; add it, or say under secrets which key is meant (or that there is none)" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range list "pendo.track_secret" "pendo.integration_key" "gateway.write_keys" "gateway.webhook_secret" "kafka.schema_registry.password" -}}
{{- if include "flagpost.setting" (list $ .) -}}
{{- fail (printf "config.%s would be in a ConfigMap, for many to read; put it in a Secret and name its key under secrets" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $key := include "flagpost.setting" (list . "gateway.keys") | default "{}" | fromJson -}}
{{- if get ($key | default dict) "key" -}}
{{- fail (printf "config.gateway.keys.%s.key would be in a ConfigMap, for many to read; name its Secret's key in secrets.gatewayKeys" $name) -}}
{{- end -}}
{{- end -}}
{{- range $property, $_ := include "flagpost.setting" (list . "kafka.properties") | default "{}" | fromJson -}}
{{- if regexMatch "password|key\\.pem$|client\\.secret" $property -}}
{{- fail (printf "config.kafka.properties: %s would be in a ConfigMap, for many to read; name its Secret's key in secrets.kafkaProperties" $property) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.ports" -}}
{{- $ports := dict
  "admin.port" (include "flagpost.consumer.adminPort" .)
  "gateway.port" (include "flagpost.gateway.port" .)
  "gateway.admin_port" (include "flagpost.gateway.adminPort" .)
-}}
{{- range $key, $port := $ports -}}
{{- if lt (int $port) 1024 -}}
{{- fail (printf "config.%s is %s; probes need a fixed port, and a process without privileges one above 1023" $key $port) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.replicas" -}}
{{- $partitions := int .Values.topics.partitions -}}
{{- $scaling := .Values.consumer.autoscaling -}}
{{- if gt (int .Values.consumer.replicas) $partitions -}}
{{- fail (printf "consumer.replicas is %v and topics.partitions %v; a pod without a partition has nothing to do" .Values.consumer.replicas .Values.topics.partitions) -}}
{{- end -}}
{{- if ne $scaling.kind "none" -}}
{{- if gt (int $scaling.maxReplicas) $partitions -}}
{{- fail (printf "consumer.autoscaling.maxReplicas is %v and topics.partitions %v; a pod without a partition has nothing to do" $scaling.maxReplicas .Values.topics.partitions) -}}
{{- end -}}
{{- if gt (int $scaling.keda.fallbackReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "consumer.autoscaling.keda.fallbackReplicas is %v and maxReplicas %v; the fallback should not be above the most" $scaling.keda.fallbackReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- include "flagpost.check.range" (dict "of" "consumer" "scaling" $scaling) -}}
{{- end -}}
{{- if .Values.gateway.autoscaling.enabled -}}
{{- include "flagpost.check.range" (dict "of" "gateway" "scaling" .Values.gateway.autoscaling) -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.range" -}}
{{- if gt (int .scaling.minReplicas) (int .scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is %v and maxReplicas %v; the least should not be above the most" .of .scaling.minReplicas .scaling.maxReplicas) -}}
{{- end -}}
{{- end -}}
