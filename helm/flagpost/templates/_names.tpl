{{/* Names, labels and the image. In: the root context. Out: text. */}}

{{- define "flagpost.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters at most, so that what is appended for each object still makes a valid name. */}}
{{- define "flagpost.fullname" -}}
{{- $name := include "flagpost.name" . -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $full | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "flagpost.selector" -}}
app.kubernetes.io/name: {{ include "flagpost.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "flagpost.labels" -}}
{{ include "flagpost.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
An object's name, namespace and labels. In: {root}, and as needed: component, which the name ends in; suffix, for
another end; name, for quite another name; namespace, for another one; labels, for further ones.
*/}}
{{- define "flagpost.metadata" -}}
name: {{ .name | default (list (include "flagpost.fullname" .root) (.suffix | default .component) | compact | join "-") }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "flagpost.labels" .root | nindent 2 }}
  {{- with .component }}
  app.kubernetes.io/component: {{ . }}
  {{- end }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "flagpost.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "flagpost.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "flagpost.fullname" .) "default") -}}
{{- end -}}

{{- define "flagpost.secretName" -}}
{{- .Values.secrets.existingSecret | default (include "flagpost.fullname" .) -}}
{{- end -}}
