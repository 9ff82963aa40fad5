{{- define "ciderfs.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "ciderfs.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What never changes: selectors are of it. Called with (list . "component"). */}}
{{- define "ciderfs.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "ciderfs.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "ciderfs.labels" -}}
{{- $root := index . 0 -}}
{{ include "ciderfs.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "ciderfs.serviceAccount" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $account := get $root.Values.serviceAccount $component -}}
{{- if and (not $account.create) (not $account.name) -}}
{{- fail (printf "serviceAccount.%s: name the account that is not to be created" $component) -}}
{{- end -}}
{{- default (printf "%s-%s" (include "ciderfs.fullname" $root) $component) $account.name -}}
{{- end -}}

{{- define "ciderfs.image" -}}
{{- if contains "juicedata/" .Values.image.repository -}}
{{- fail (printf "image.repository %s is the image of the official driver, which has no `ciderfs` in it: remove `image` from your values, or name an image of CiderFS" .Values.image.repository) -}}
{{- end -}}
image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{/* Of {repository, tag, pullPolicy}. */}}
{{- define "ciderfs.otherImage" -}}
image: {{ printf "%s:%s" .repository .tag | quote }}
imagePullPolicy: {{ default "IfNotPresent" .pullPolicy }}
{{- end -}}

{{/* What every pod has of its part's values. Called with (list . part). */}}
{{- define "ciderfs.pod" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: {{ int $part.terminationGracePeriodSeconds }}
dnsPolicy: {{ $root.Values.dnsPolicy }}
{{- with $root.Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector:
  kubernetes.io/os: linux
  {{- with $part.nodeSelector }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of a container that needs nothing of the node. Side-cars write into the socket directory of root. */}}
{{- define "ciderfs.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ciderfs.pluginDir" -}}
{{ .Values.kubeletDir }}/csi-plugins/{{ .Values.driverName }}
{{- end -}}

{{- define "ciderfs.redis" -}}
{{ include "ciderfs.fullname" . }}-redis
{{- end -}}

{{- define "ciderfs.redisSecret" -}}
{{- default (include "ciderfs.redis" .) .Values.redis.existingSecret -}}
{{- end -}}

{{- define "ciderfs.leaderNamespace" -}}
{{- default .Release.Namespace .Values.controller.leaderElection.leaderElectionNamespace -}}
{{- end -}}

{{/* Secret and namespace of a class. Called with (list . class). */}}
{{- define "ciderfs.classSecret" -}}
{{- $class := index . 1 -}}
{{- default (printf "%s-secret" $class.name) $class.existingSecret -}}
{{- end -}}

{{- define "ciderfs.classNamespace" -}}
{{- default (index . 0).Release.Namespace (index . 1).secretNamespace -}}
{{- end -}}
