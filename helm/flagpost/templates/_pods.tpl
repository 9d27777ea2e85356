{{/*
What pods have in common. In, mostly: {root, component}; the component is consumer, gateway, web, topics, reconcile
or check.
*/}}

{{/* The values of a component; the consumer's are those of its commands, too. */}}
{{- define "flagpost.placedAs" -}}
{{- has .component (list "gateway" "web") | ternary .component "consumer" -}}
{{- end -}}

{{/* Metadata of a pod; without the chart's version, which is no reason for a restart. */}}
{{- define "flagpost.podMetadata" -}}
{{- $values := get .root.Values .component | default dict -}}
{{- $own := dict "checksum/config" (toYaml .root.Values.config | sha256sum) -}}
annotations:
  {{- merge $own ($values.podAnnotations | default dict) .root.Values.commonAnnotations | toYaml | nindent 2 }}
labels:
  {{- $selector := include "flagpost.selector" . | fromYaml }}
  {{- merge $selector ($values.podLabels | default dict) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- end -}}

{{/* Identity and security of a pod. In: the root context. */}}
{{- define "flagpost.podIdentity" -}}
serviceAccountName: {{ include "flagpost.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with include "flagpost.imagePullSecrets" . | fromJsonArray }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{/* Where the pods of a Deployment run. */}}
{{- define "flagpost.placement" -}}
{{- $values := get .root.Values .component -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $values.topologyKeys }}
topologySpreadConstraints:
  {{- range . }}
  - maxSkew: 1
    topologyKey: {{ . | quote }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "flagpost.selector" $ | nindent 8 }}
    matchLabelKeys:
      - pod-template-hash
  {{- end }}
{{- end }}
{{ include "flagpost.nodes" . }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Which nodes may run a component's pods. */}}
{{- define "flagpost.nodes" -}}
{{- range $key := list "nodeSelector" "tolerations" }}
{{- with get (get $.root.Values (include "flagpost.placedAs" $)) $key }}
{{ $key }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A container, up to its ports and probes. In: {root, component, command, resources}. */}}
{{- define "flagpost.container" -}}
- name: {{ .component }}
  image: {{ include "flagpost.image" .root | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    {{- toYaml .command | nindent 4 }}
  env:
    {{- include "flagpost.env" . | fromYamlArray | toYaml | nindent 4 }}
  {{- with include "flagpost.extra" (merge (dict "key" "extraEnvFrom") .) | fromJsonArray }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- include "flagpost.volumeMounts" . | nindent 4 }}
  securityContext:
    {{- toYaml .root.Values.securityContext | nindent 4 }}
  resources:
    {{- toYaml .resources | nindent 4 }}
{{- end -}}

{{/*
Probes on the port `admin`, or another. A restore of the ledger is live and ready, so no probe waits for it. In: the
component's values, and as needed port.
*/}}
{{- define "flagpost.probes" -}}
{{- range $probe, $path := dict "startupProbe" "/livez" "livenessProbe" "/livez" "readinessProbe" "/readyz" }}
{{ $probe }}:
  httpGet:
    path: {{ $path }}
    port: {{ $.port | default "admin" }}
  {{- toYaml (get $ $probe) | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A pod of one command that runs to its end. In: {root, component, command, resources}. */}}
{{- define "flagpost.commandPod" -}}
{{ include "flagpost.podIdentity" .root }}
{{- include "flagpost.nodes" . }}
restartPolicy: {{ .restartPolicy | default "Never" }}
containers:
  {{- include "flagpost.container" . | nindent 2 }}
volumes:
  {{- include "flagpost.volumes" . | nindent 2 }}
{{- end -}}

{{/* In: {root, component, several}; with a single pod a budget could only hold up a node's drain. */}}
{{- define "flagpost.podDisruptionBudget" -}}
{{- $budget := (get .root.Values .component).podDisruptionBudget -}}
{{- if and $budget.enabled .several }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "flagpost.metadata" (pick . "root" "component") | nindent 2 }}
spec:
  maxUnavailable: {{ $budget.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "flagpost.selector" . | nindent 6 }}
{{- end }}
{{- end -}}
