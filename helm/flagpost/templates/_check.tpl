{{/* What values.schema.json cannot see: values that do not go together. Each failure says what to set instead. */}}

{{- define "flagpost.check" -}}
{{- if not .Values.enabled -}}
{{- fail "enabled is false, but no parent chart has `condition: flagpost.enabled` in its dependency; add it there, or uninstall the release" -}}
{{- end -}}
{{- include "flagpost.check.config" . -}}
{{- include "flagpost.check.registry" . -}}
{{- include "flagpost.check.secrets" . -}}
{{- include "flagpost.check.namedKeys" . -}}
{{- include "flagpost.check.users" . -}}
{{- range $component := include "flagpost.users" . | fromJsonArray -}}
{{- include "flagpost.check.environment" (dict "root" $ "component" $component) -}}
{{- end -}}
{{- if .Values.web.enabled -}}
{{- include "flagpost.check.environment" (dict "root" $ "component" "web") -}}
{{- end -}}
{{- include "flagpost.check.replicas" . -}}
{{- include "flagpost.check.network" . -}}
{{- if and (eq .Values.consumer.autoscaling.kind "keda") (not .Values.consumer.autoscaling.keda.serverAddress) -}}
{{- fail "consumer.autoscaling.keda.serverAddress is required with consumer.autoscaling.kind: keda; give Prometheus's URL" -}}
{{- end -}}
{{- if and .Values.web.ingress.enabled (not .Values.web.ingress.hosts) -}}
{{- fail "web.ingress.hosts is required with web.ingress.enabled; list the host names" -}}
{{- end -}}
{{- if and .Values.gateway.ingress.enabled (not .Values.gateway.ingress.hosts) -}}
{{- fail "gateway.ingress.hosts is required with gateway.ingress.enabled; list the host names" -}}
{{- end -}}
{{- end -}}

{{/* Not empty, if a component is given this variable. In: {root, component, name}. */}}
{{- define "flagpost.hasVariable" -}}
{{- $values := get .root.Values .component -}}
{{- range concat (include "flagpost.ownEnv" . | fromYamlArray) .root.Values.extraEnv ($values.extraEnv | default list) -}}
{{- if eq .name $.name }}true{{ end -}}
{{- end -}}
{{- end -}}

{{/*
Not empty, if a component is told this setting, in whatever way; with extraEnvFrom, nobody knows. In: {root, component,
setting}.
*/}}
{{- define "flagpost.isTold" -}}
{{- $variable := .setting | upper | replace "." "__" | printf "FLAGPOST_%s" -}}
{{- range list "" "_file" -}}
{{- include "flagpost.setting" (list $.root (printf "%s%s" $.setting .)) -}}
{{- include "flagpost.hasVariable" (merge (dict "name" (printf "%s%s" $variable (upper .))) $) -}}
{{- end -}}
{{- with (get .root.Values .component).extraEnvFrom }}true{{ end -}}
{{- end -}}

{{/* The rules of the programs that reach across keys of `config`; the test of the schema holds that there are no others. */}}
{{- define "flagpost.check.config" -}}
{{- range $component := include "flagpost.users" . | fromJsonArray -}}
{{- if not (include "flagpost.isTold" (dict "root" $ "component" $component "setting" "kafka.bootstrap_servers")) -}}
{{- fail "config.kafka.bootstrap_servers is required; give it as host:port,host:port" -}}
{{- end -}}
{{- end -}}
{{- $session := include "flagpost.setting" (list . "kafka.session_timeout_seconds") | default "45" | float64 -}}
{{- $request := include "flagpost.setting" (list . "pendo.request_timeout_seconds") | default "10" | float64 -}}
{{- if ge (mulf 2 $request) $session -}}
{{- fail (printf "config.pendo.request_timeout_seconds is %v; it should be under half of config.kafka.session_timeout_seconds, which is %v" $request $session) -}}
{{- end -}}
{{- $topics := dict -}}
{{- range $setting, $name := dict
  "kafka.topic" "flagpost.events"
  "kafka.ledger_topic" "flagpost.ledger"
  "kafka.dead_letter_topic" "flagpost.dead-letters"
  "kafka.suppressions_topic" "flagpost.suppressions"
  "kafka.impressions_topic" ""
  "gateway.webhook_topic" "flagpost.pendo-webhooks"
-}}
{{- $name = include "flagpost.setting" (list $ $setting) | default $name -}}
{{- with get $topics $name -}}
{{- fail (printf "config.%s and config.%s are the same topic, %s; give each topic its own name" . $setting $name) -}}
{{- end -}}
{{- $_ := set $topics $name $setting -}}
{{- end -}}
{{- if eq (include "flagpost.gateway.port" .) (include "flagpost.gateway.adminPort" .) -}}
{{- fail "config.gateway.admin_port should be another port than config.gateway.port" -}}
{{- end -}}
{{- range list "pendo.track_url" "pendo.api_url" -}}
{{- $url := include "flagpost.setting" (list $ .) -}}
{{- if and (include "flagpost.showsSecrets" $url) (ne (include "flagpost.setting" (list $ "pendo.allow_insecure_http")) "true") -}}
{{- fail (printf "config.%s: plain http shows the secret to the network; use https, or set config.pendo.allow_insecure_http" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Not empty, if others could read what is sent to a URL: plain http that leaves the pod. */}}
{{- define "flagpost.showsSecrets" -}}
{{- $loopback := "^http://(([-_.a-zA-Z0-9]+\\.)?localhost|127(\\.[0-9]+){3}|\\[::1\\])(:[0-9]+)?([/?]|$)" -}}
{{- if and (hasPrefix "http://" .) (not (regexMatch $loopback .)) }}true{{ end -}}
{{- end -}}

{{- define "flagpost.check.registry" -}}
{{- $url := include "flagpost.setting" (list . "kafka.schema_registry.url") -}}
{{- $username := include "flagpost.isTold" (dict "root" . "component" "consumer" "setting" "kafka.schema_registry.username") -}}
{{- range $component := .Values.gateway.enabled | ternary (list "consumer" "gateway") (list "consumer") -}}
{{- if include "flagpost.isTold" (dict "root" $ "component" $component "setting" "kafka.schema_registry.password") -}}
{{- if not $username -}}
{{- fail "config.kafka.schema_registry.username is required with a password" -}}
{{- end -}}
{{- if and (include "flagpost.showsSecrets" $url) (ne (include "flagpost.setting" (list $ "kafka.schema_registry.allow_insecure_http")) "true") -}}
{{- fail "config.kafka.schema_registry.url: plain http shows the password to the network; use https, or set config.kafka.schema_registry.allow_insecure_http" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.secrets" -}}
{{- range $user, $inline := .Values.secrets.inline -}}
{{- if (get $.Values.secrets $user | default dict).existingSecret -}}
{{- fail (printf "secrets.%s.existingSecret and secrets.inline.%s are both set; remove one" $user $user) -}}
{{- end -}}
{{- range include "flagpost.secretKeys" (dict "root" $ "user" $user) | fromJsonArray -}}
{{- if not (hasKey $inline .) -}}
{{- fail (printf "secrets.inline.%s lacks %s; add it, or set the key's name under secrets and kafkaUsers (empty if there is none)" $user .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $component := include "flagpost.users" . | fromJsonArray -}}
{{- range (include "flagpost.secretFiles" (dict "root" $ "component" $component) | fromJson).files -}}
{{- if include "flagpost.setting" (list $ (printf "%s_file" .setting)) -}}
{{- fail (printf "config.%s_file is set, and so is a key for it under secrets.%s; empty one of the two" .setting $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "flagpost.check.told" (dict "root" . "component" "consumer" "setting" "pendo.track_secret" "value" "secrets.consumer.trackSecret") -}}
{{- if ne (include "flagpost.setting" (list . "decisions.visitor_metadata")) "false" -}}
{{- include "flagpost.check.told" (dict "root" . "component" "consumer" "setting" "pendo.integration_key" "value" "secrets.consumer.integrationKey") -}}
{{- end -}}
{{- if and .Values.gateway.enabled (not (include "flagpost.setting" (list . "gateway.keys") | default "{}" | fromJson)) -}}
{{- include "flagpost.check.told" (dict "root" . "component" "gateway" "setting" "gateway.write_keys" "value" "secrets.gateway.writeKeys") -}}
{{- end -}}
{{- end -}}

{{/* Each key with a name is given once, and a public one, which browsers have, sends what these may send. */}}
{{- define "flagpost.check.namedKeys" -}}
{{- $files := .Values.secrets.gateway.keys -}}
{{- $unnamed := include "flagpost.isTold" (dict "root" . "component" "gateway" "setting" "gateway.write_keys") -}}
{{- range $name, $key := include "flagpost.setting" (list . "gateway.keys") | default "{}" | fromJson -}}
{{- $given := list (hasKey $files $name) (not (empty $key.key_file)) (not (empty $key.key_sha256)) -}}
{{- if ne (len (without $given false)) 1 -}}
{{- fail (printf "config.gateway.keys.%s: one of key_file, key_sha256 and secrets.gateway.keys.%s is required" $name $name) -}}
{{- end -}}
{{- if and $key.origins (without ($key.types | default list) "track" "page") -}}
{{- fail (printf "config.gateway.keys.%s.types: a key with origins is public and may send track and page only; remove the other types" $name) -}}
{{- end -}}
{{- if and $unnamed (regexMatch "^key-[0-9]+$" $name) -}}
{{- fail (printf "config.gateway.keys.%s is also the name of one of the keys of secrets.gateway.writeKeys; give it another name" $name) -}}
{{- end -}}
{{- end -}}
{{- if and $unnamed (regexMatch "(^| )key-[0-9]+( |$)" (keys $files | join " ")) -}}
{{- fail "secrets.gateway.keys has a name that is also one of the keys of secrets.gateway.writeKeys; give it another name" -}}
{{- end -}}
{{- end -}}

{{/* librdkafka's properties whose values are secrets, or may hold one. In: {properties, of}. */}}
{{- define "flagpost.check.secretProperties" -}}
{{- $of := .of -}}
{{- range $property, $_ := .properties -}}
{{- if regexMatch "(?i)password|passphrase|secret|private|token$|\\.jwt$|key\\.pem$|jaas|oauthbearer\\.config|assertion\\.file" $property -}}
{{- fail (printf "%s: %s would be readable by many; put it into a Secret and name its key in kafkaUsers.*.secretProperties" $of $property) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.told" -}}
{{- if not (include "flagpost.isTold" .) -}}
{{- fail (printf "%s is empty, and nothing else sets the %s's %s; set one of them" .value .component .setting) -}}
{{- end -}}
{{- end -}}

{{/* All of a release's users have credentials, or none has; and a property is given in one way. */}}
{{- define "flagpost.check.users" -}}
{{- $with := list -}}
{{- $without := list -}}
{{- $shared := include "flagpost.setting" (list . "kafka.properties") | default "{}" | fromJson -}}
{{- include "flagpost.check.secretProperties" (dict "of" "config.kafka.properties" "properties" $shared) -}}
{{- range $user := include "flagpost.users" . | fromJsonArray -}}
{{- $kafka := get $.Values.kafkaUsers $user -}}
{{- include "flagpost.check.secretProperties" (dict "of" (printf "kafkaUsers.%s.properties" $user) "properties" $kafka.properties) -}}
{{- if $kafka.secretProperties }}{{ $with = append $with $user }}{{ else }}{{ $without = append $without $user }}{{ end -}}
{{- range $property, $_ := $kafka.secretProperties -}}
{{- if or (hasKey $kafka.properties $property) (hasKey $shared $property) -}}
{{- fail (printf "%s is in kafkaUsers.%s.secretProperties, and is also set without a Secret; remove one" $property $user) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $with $without -}}
{{- fail (printf "kafkaUsers.%s has secretProperties and kafkaUsers.%s has none; give each its own user (or set topics.create to false)" (first $with) (first $without)) -}}
{{- end -}}
{{- $files := include "flagpost.setting" (list . "kafka.properties_files") | default "{}" | fromJson -}}
{{- range $property, $_ := $shared -}}
{{- if hasKey $files $property -}}
{{- fail (printf "config.kafka.properties_files has %s, and config.kafka.properties has it as well; remove one" $property) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Variables that come twice, or that what the chart makes of `config` would not follow. In: {root, component}. */}}
{{- define "flagpost.check.environment" -}}
{{- $names := list -}}
{{- range include "flagpost.env" . | fromYamlArray -}}
{{- if has .name $names -}}
{{- fail (printf "extraEnv gives %s to the %s, which has it already; remove it from extraEnv" .name $.component) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- range list "admin.port" "gateway.port" "gateway.admin_port" "web.port" "delivery.drain_seconds" -}}
{{- $variable := . | upper | replace "." "__" | printf "FLAGPOST_%s" -}}
{{- if has $variable $names -}}
{{- fail (printf "extraEnv gives %s, but the chart's probes, ports and grace periods would not use it; set config.%s instead" $variable .) -}}
{{- end -}}
{{- end -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- $proxies := list "HTTPS_PROXY" "https_proxy" "HTTP_PROXY" "http_proxy" "FLAGPOST_PENDO__PROXY" "FLAGPOST_KAFKA__SCHEMA_REGISTRY__PROXY" -}}
{{- range $names -}}
{{- if and $policy.enabled (has . $proxies) (not $policy.proxyTo) (not $policy.extraEgress) -}}
{{- fail (printf "extraEnv gives %s, but the NetworkPolicy does not let the pods reach that proxy; add it to networkPolicy.extraEgress" .) -}}
{{- end -}}
{{- end -}}
{{- if and $policy.enabled (has "FLAGPOST_KAFKA__BOOTSTRAP_SERVERS" $names) (not $policy.kafkaPorts) -}}
{{- fail "extraEnv gives FLAGPOST_KAFKA__BOOTSTRAP_SERVERS, but the NetworkPolicy cannot read its ports; set networkPolicy.kafkaPorts" -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.network" -}}
{{- $gateway := .Values.gateway -}}
{{- if and .Values.networkPolicy.enabled $gateway.enabled (not .Values.networkPolicy.gatewayFrom) -}}
{{- if or $gateway.ingress.enabled (ne $gateway.service.type "ClusterIP") -}}
{{- fail "networkPolicy.gatewayFrom is empty, so nobody outside the namespace could reach the gateway; name your ingress controller's namespace, or the networks of its clients" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.replicas" -}}
{{- $partitions := int .Values.topics.partitions -}}
{{- $scaling := .Values.consumer.autoscaling -}}
{{- if gt (int .Values.consumer.replicas) $partitions -}}
{{- fail (printf "consumer.replicas is %v and topics.partitions %v; pods without a partition do nothing, so set fewer replicas" .Values.consumer.replicas .Values.topics.partitions) -}}
{{- end -}}
{{- if ne $scaling.kind "none" -}}
{{- if gt (int $scaling.maxReplicas) $partitions -}}
{{- fail (printf "consumer.autoscaling.maxReplicas is %v and topics.partitions %v; pods without a partition do nothing, so set fewer" $scaling.maxReplicas .Values.topics.partitions) -}}
{{- end -}}
{{- if gt (int $scaling.keda.fallbackReplicas) (int $scaling.maxReplicas) -}}
{{- fail (printf "consumer.autoscaling.keda.fallbackReplicas is %v and maxReplicas %v; fallbackReplicas must not be above maxReplicas" $scaling.keda.fallbackReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- include "flagpost.check.range" (dict "of" "consumer" "scaling" $scaling) -}}
{{- end -}}
{{- if .Values.gateway.autoscaling.enabled -}}
{{- include "flagpost.check.range" (dict "of" "gateway" "scaling" .Values.gateway.autoscaling) -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.check.range" -}}
{{- if gt (int .scaling.minReplicas) (int .scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling.minReplicas is %v and maxReplicas %v; minReplicas must not be above maxReplicas" .of .scaling.minReplicas .scaling.maxReplicas) -}}
{{- end -}}
{{- end -}}
