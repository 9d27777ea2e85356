{{/* What of the settings file concerns Kubernetes, and how the programs find it and their secrets. */}}

{{/*
A key of `config` as text, maps as JSON, empty where it is not given; a section whose keys are all commented out is
null. In: [root, "section.key"].
*/}}
{{- define "flagpost.setting" -}}
{{- $here := (first .).Values.config -}}
{{- range splitList "." (last .) -}}
{{- $here = get (kindIs "map" $here | ternary $here dict) . -}}
{{- end -}}
{{- if kindIs "map" $here -}}
{{- toJson $here -}}
{{- else if not (kindIs "invalid" $here) -}}
{{- $here -}}
{{- end -}}
{{- end -}}

{{/* Ports: what `config` does not say has the program's default. */}}
{{- define "flagpost.consumer.adminPort" -}}
{{- include "flagpost.setting" (list . "admin.port") | default "8080" -}}
{{- end -}}

{{- define "flagpost.gateway.port" -}}
{{- include "flagpost.setting" (list . "gateway.port") | default "8081" -}}
{{- end -}}

{{- define "flagpost.gateway.adminPort" -}}
{{- include "flagpost.setting" (list . "gateway.admin_port") | default "8082" -}}
{{- end -}}

{{/* The drain, 10 s to leave the group, and 5 s for the rest. */}}
{{- define "flagpost.consumer.graceSeconds" -}}
{{- include "flagpost.setting" (list . "delivery.drain_seconds") | default "20" | ceil | int | add 15 -}}
{{- end -}}

{{/* A change of this restarts the pods; a change of a Secret does not: the programs read those files again. */}}
{{- define "flagpost.configChecksum" -}}
checksum/config: {{ toYaml .Values.config | sha256sum }}
{{- end -}}

{{/*
The secrets that a component reads from files. In: {root, component}. Out: JSON {files: [{setting, key}]}; the
setting's name is also the file's.
*/}}
{{- define "flagpost.secretFiles" -}}
{{- $secrets := .root.Values.secrets -}}
{{- $own := dict
  "consumer" (list (list "pendo.track_secret" $secrets.trackSecret) (list "pendo.integration_key" $secrets.integrationKey))
  "gateway" (list (list "gateway.write_keys" $secrets.writeKeys) (list "gateway.webhook_secret" $secrets.webhookSecret))
-}}
{{- $files := list -}}
{{- range append (get $own .component) (list "kafka.schema_registry.password" $secrets.registryPassword) -}}
{{- if last . -}}
{{- $files = append $files (dict "setting" (first .) "key" (last .)) -}}
{{- end -}}
{{- end -}}
{{- dict "files" $files | toJson -}}
{{- end -}}

{{/* The keys of the release's main Secret that its pods mount, as a JSON list. */}}
{{- define "flagpost.secretKeys" -}}
{{- $keys := list -}}
{{- range .Values.gateway.enabled | ternary (list "consumer" "gateway") (list "consumer") -}}
{{- range (include "flagpost.secretFiles" (dict "root" $ "component" .) | fromJson).files -}}
{{- $keys = append $keys .key -}}
{{- end -}}
{{- end -}}
{{- if .Values.gateway.enabled -}}
{{- $keys = concat $keys (values .Values.secrets.gatewayKeys) -}}
{{- end -}}
{{- if not .Values.secrets.kafkaSecret -}}
{{- $keys = concat $keys (values .Values.secrets.kafkaProperties) -}}
{{- end -}}
{{- $keys | uniq | sortAlpha | toJson -}}
{{- end -}}

{{/* The environment of a program. In: {root, component}. */}}
{{- define "flagpost.env" -}}
- name: FLAGPOST_CONFIG
  value: /etc/flagpost/flagpost.yaml
{{- range (include "flagpost.secretFiles" . | fromJson).files }}
- name: FLAGPOST_{{ .setting | upper | replace "." "__" }}_FILE
  value: /run/secrets/flagpost/{{ .setting }}
{{- end }}
{{- with .root.Values.secrets.kafkaProperties }}
{{- $files := dict }}
{{- range $property, $key := . }}
{{- $_ := set $files $property (printf "/run/secrets/flagpost/kafka/%s" $property) }}
{{- end }}
- name: FLAGPOST_KAFKA__PROPERTIES_FILES
  value: {{ merge $files (include "flagpost.setting" (list $.root "kafka.properties_files") | default "{}" | fromJson) | toJson | quote }}
{{- end }}
{{- if and (eq .component "gateway") .root.Values.secrets.gatewayKeys }}
{{- $keys := include "flagpost.setting" (list .root "gateway.keys") | default "{}" | fromJson }}
{{- range $name, $_ := .root.Values.secrets.gatewayKeys }}
{{- $file := dict "key_file" (printf "/run/secrets/flagpost/gateway.keys/%s" $name) }}
{{- $_ := set $keys $name (merge $file (get $keys $name | default dict)) }}
{{- end }}
- name: FLAGPOST_GATEWAY__KEYS
  value: {{ $keys | toJson | quote }}
{{- end }}
{{- with .root.Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "flagpost.volumeMounts" -}}
- name: config
  mountPath: /etc/flagpost
  readOnly: true
{{- if include "flagpost.secretSources" . }}
- name: secrets
  mountPath: /run/secrets/flagpost
  readOnly: true
{{- end }}
{{- with .root.Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The volumes of a pod. In: {root, component}. */}}
{{- define "flagpost.volumes" -}}
- name: config
  configMap:
    name: {{ include "flagpost.fullname" .root }}
{{- with include "flagpost.secretSources" . }}
- name: secrets
  projected:
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Of the Secrets, what the component reads and nothing else. Not by subPath: only whole volumes follow a rotated Secret.
*/}}
{{- define "flagpost.secretSources" -}}
{{- $secrets := .root.Values.secrets -}}
{{- with (include "flagpost.secretFiles" . | fromJson).files -}}
- secret:
    name: {{ include "flagpost.secretName" $.root }}
    items:
      {{- range . }}
      - key: {{ .key }}
        path: {{ .setting }}
      {{- end }}
{{ end -}}
{{- if and (eq .component "gateway") $secrets.gatewayKeys -}}
- secret:
    name: {{ include "flagpost.secretName" .root }}
    items:
      {{- range $name, $key := $secrets.gatewayKeys }}
      - key: {{ $key }}
        path: gateway.keys/{{ $name }}
      {{- end }}
{{ end -}}
{{- with $secrets.kafkaProperties -}}
- secret:
    name: {{ $secrets.kafkaSecret | default (include "flagpost.secretName" $.root) }}
    items:
      {{- range $property, $key := . }}
      - key: {{ $key }}
        path: kafka/{{ $property }}
      {{- end }}
{{- end -}}
{{- end -}}
