# As much of nixpkgs' `lib` as the modules here use, written for these tests: machines without nixpkgs evaluate them with it.
let
  b = builtins;

  fold = b.foldl';
  concatStrings = b.concatStringsSep "";
  mapAttrsToList = f: set: map (n: f n set.${n}) (b.attrNames set);
  filterAttrs = keep: set: b.listToAttrs (b.filter (p: keep p.name p.value) (mapAttrsToList nameValuePair set));
  nameValuePair = name: value: { inherit name value; };
  mapAttrs' = f: set: b.listToAttrs (mapAttrsToList f set);
  reverse = fold (out: one: [ one ] ++ out) [ ];
  optional = yes: one: if yes then [ one ] else [ ];
  unique = fold (seen: one: if b.elem one seen then seen else seen ++ [ one ]) [ ];
  hasPrefix = p: s: b.substring 0 (b.stringLength p) s == p;
  hasSuffix = p: s:
    let at = b.stringLength s - b.stringLength p;
    in at >= 0 && b.substring at (b.stringLength p) s == p;
  # Without patterns: what stands between the separators.
  splitString = sep: s: b.filter b.isString (b.split (escapePattern sep) s);
  escapePattern = b.replaceStrings
    [ "\\" "^" "$" "." "|" "?" "*" "+" "(" ")" "[" "]" "{" "}" ]
    [ "\\\\" "\\^" "\\$" "\\." "\\|" "\\?" "\\*" "\\+" "\\(" "\\)" "\\[" "\\]" "\\{" "\\}" ];
  recursiveUpdate = old: new: old // b.mapAttrs
    (n: v: if b.isAttrs v && b.isAttrs (old.${n} or null) then recursiveUpdate old.${n} v else v)
    new;

  # --- Definitions -------------------------------------------------------------------------------------------------------------
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOption = given: { _type = "option"; } // given;
  isType = name: v: b.isAttrs v && (v._type or "") == name;

  # What a value says in the end: a list of plain values with priorities.
  spread = priority: v:
    if isType "if" v then (if v.condition then spread priority v.content else [ ])
    else if isType "merge" v then b.concatMap (spread priority) v.contents
    else if isType "override" v then spread v.priority v.content
    else if isType "order" v then spread priority v.content
    else [{ inherit priority; value = v; }];

  # Attributes below conditions: each becomes a condition below its attribute.
  push = v:
    if isType "if" v then map (b.mapAttrs (_: mkIf v.condition)) (push v.content)
    else if isType "merge" v then b.concatMap push v.contents
    else if isType "override" v then map (b.mapAttrs (_: mkOverride v.priority)) (push v.content)
    else [ v ];

  # --- Types -------------------------------------------------------------------------------------------------------------------
  show = b.concatStringsSep ".";
  plain = name: check: {
    inherit name check;
    merge = loc: values:
      let first = b.head values;
      in
      if b.all (v: v == first) values then first
      else throw "The option `${show loc}' has conflicting definition values: ${b.toJSON values}";
  };
  types = rec {
    bool = plain "boolean" b.isBool;
    int = plain "signed integer" b.isInt;
    str = plain "string" b.isString;
    singleLineStr = plain "single-line string" (v: b.isString v && b.match "[^\n]*" v != null);
    path = plain "absolute path" (v: b.isPath v || (b.isString v && hasPrefix "/" v));
    package = plain "package" (v: b.isAttrs v || b.isPath v || b.isString v);
    port = plain "16 bit unsigned integer; between 0 and 65535 (both inclusive)" (v: b.isInt v && v >= 0 && v <= 65535);
    ints = {
      positive = plain "positive integer, meaning >0" (v: b.isInt v && v > 0);
      unsigned = plain "unsigned integer, meaning >=0" (v: b.isInt v && v >= 0);
      between = low: high: plain "integer between ${toString low} and ${toString high} (both inclusive)"
        (v: b.isInt v && v >= low && v <= high);
    };
    numbers.between = low: high: plain "integer or floating point number between ${toString low} and ${toString high} (both inclusive)"
      (v: (b.isInt v || b.isFloat v) && v >= low && v <= high);
    enum = values: plain "one of ${b.concatStringsSep ", " (map b.toJSON values)}" (v: b.elem v values);
    strMatching = pattern: plain "string matching the pattern ${pattern}" (v: b.isString v && b.match pattern v != null);
    anything = {
      name = "anything";
      check = _: true;
      merge = loc: values:
        if b.all b.isAttrs values then fold recursiveUpdate { } values
        else (plain "anything" (_: true)).merge loc values;
    };
    raw = anything;
    attrs = anything // { name = "attribute set"; check = b.isAttrs; };
    lines = plain "strings concatenated with \"\\n\"" b.isString // { merge = _: b.concatStringsSep "\n"; };
    nullOr = t: {
      name = "null or ${t.name}";
      check = v: v == null || t.check v;
      merge = loc: values:
        let some = b.filter (v: v != null) values;
        in if some == [ ] then null else t.merge loc some;
    };
    either = a: other: {
      name = "${a.name} or ${other.name}";
      check = v: a.check v || other.check v;
      merge = loc: values: if b.all a.check values then a.merge loc values else other.merge loc values;
    };
    oneOf = list: fold either (b.head list) (b.tail list);
    listOf = t: {
      name = "list of ${t.name}";
      check = b.isList;
      merge = loc: values: b.concatMap (b.concatMap (v: map (one: typed loc t [ one ]) (map (d: d.value) (spread 100 v)))) values;
    };
    attrsOf = t: {
      name = "attribute set of ${t.name}";
      check = b.isAttrs;
      merge = loc: values:
        let
          names = unique (b.concatMap b.attrNames values);
          defs = n: b.concatMap (v: optional (v ? ${n}) v.${n}) values;
          some = n: lowest (b.concatMap (spread 100) (defs n)) != [ ];
        in
        b.listToAttrs (map (n: nameValuePair n (resolved (loc ++ [ n ]) t (defs n))) (b.filter some names));
    };
    submodule = module: {
      name = "submodule";
      check = v: b.isAttrs v || b.isFunction v;
      merge = loc: values: (evaluate {
        prefix = loc;
        # What was said last comes first, as in nixpkgs.
        modules = [ module ] ++ map (v: if b.isFunction v then v else { config = v; }) (reverse values);
        args = { name = b.elemAt loc (b.length loc - 1); };
      }).config;
    };
  };

  lowest = defs:
    let least = fold (low: d: if d.priority < low then d.priority else low) 9999 defs;
    in map (d: d.value) (b.filter (d: d.priority == least) defs);

  typed = loc: t: values:
    let bad = b.filter (v: !t.check v) values;
    in
    if bad != [ ] then
      throw "A definition for option `${show loc}' is not of type `${t.name}': ${b.toJSON (b.head bad)}"
    else t.merge loc values;

  resolved = loc: t: defs: typed loc t (lowest (b.concatMap (spread 100) defs));

  # --- Modules -----------------------------------------------------------------------------------------------------------------
  keys = [ "imports" "options" "config" "key" "_file" "_module" "meta" "disabledModules" ];

  # A file, a function or a set, with all that it imports. A file counts once.
  load = args: modules:
    let
      go = seen: list:
        if list == [ ] then { inherit seen; out = [ ]; }
        else
          let
            raw = b.head list;
            isFile = b.isPath raw || b.isString raw;
            file = if isFile then toString raw else "";
            skip = isFile && b.elem file seen;
            value = if isFile then import raw else raw;
            set = if b.isFunction value then value args else value;
            isFull = set ? options || set ? config;
            extra = removeAttrs set keys;
            one = {
              options = set.options or { };
              config =
                if !isFull then extra
                else if extra == { } then set.config or { }
                else throw "Module `${file}' has an unsupported attribute `${b.head (b.attrNames extra)}'";
            };
            inner = go (seen ++ optional isFile file) (set.imports or [ ]);
            others = go inner.seen (b.tail list);
            skipped = go seen (b.tail list);
          in
          if skip then skipped
          else { inherit (others) seen; out = inner.out ++ [ one ] ++ others.out; };
    in
    (go [ ] modules).out;

  mergeOptions = fold
    (all: more: all // b.mapAttrs
      (n: v:
        if !(all ? ${n}) then v
        else if isType "option" v || isType "option" all.${n} then throw "The option `${n}' is declared twice"
        else mergeOptions [ all.${n} v ])
      more)
    { };

  evaluate = { modules, prefix ? [ ], args ? { } }:
    let
      all = args // { inherit config lib; options = declared; };
      loaded = load all modules;
      declared = mergeOptions (map (m: m.options) loaded);
      defs = b.concatMap (m: push m.config) loaded;
      config = fill prefix declared defs;
      fill = loc: options: values:
        let
          known = b.attrNames options;
          check = v: map
            (n: if b.elem n known || n == "_module" then n
              else throw "The option `${show (loc ++ [ n ])}' does not exist. Definition values: ${shown v.${n}}")
            (b.attrNames v);
          checked = b.deepSeq (map check values);
        in
        checked (b.mapAttrs
          (n: o:
            let
              here = loc ++ [ n ];
              given = b.concatMap (v: optional (v ? ${n}) v.${n}) values;
              withDefault = given ++ (if o ? default then [ (mkOverride 1500 o.default) ] else [ ]);
              some = lowest (b.concatMap (spread 100) withDefault);
              value = if some == [ ] then throw "The option `${show here}' was accessed but has no value defined. Try setting the option."
                else typed here o.type some;
            in
            if isType "option" o then (o.apply or (v: v)) value
            else fill here o (b.concatMap push given))
          options);
    in
    { inherit config; options = declared; };

  shown = v: if b.isAttrs v && v ? _type then "(conditional)" else (b.tryEval (b.toJSON v)).value or "?";

  lib = {
    inherit concatStrings mapAttrsToList filterAttrs nameValuePair mapAttrs' optional unique hasPrefix hasSuffix splitString recursiveUpdate
      mkIf mkMerge mkOverride mkOption types;
    inherit (b) attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter head tail length mapAttrs replaceStrings
      listToAttrs any all isList isString isAttrs isPath toJSON stringLength;
    optionals = yes: list: if yes then list else [ ];
    optionalString = yes: s: if yes then s else "";
    optionalAttrs = yes: set: if yes then set else { };
    concatMapStringsSep = sep: f: list: b.concatStringsSep sep (map f list);
    hasInfix = part: s: b.match ".*${escapePattern part}.*" s != null;
    removePrefix = p: s: if hasPrefix p s then b.substring (b.stringLength p) (b.stringLength s) s else s;
    removeSuffix = p: s: if hasSuffix p s then b.substring 0 (b.stringLength s - b.stringLength p) s else s;
    last = list: b.elemAt list (b.length list - 1);
    toInt = s: b.fromJSON s;
    genAttrs = names: f: b.listToAttrs (map (n: nameValuePair n (f n)) names);
    mapAttrsRecursive = f: set:
      let go = at: b.mapAttrs (n: v: if b.isAttrs v then go (at ++ [ n ]) v else f (at ++ [ n ]) v); in go [ ] set;
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkEnableOption = what: mkOption { type = types.bool; default = false; description = "Whether to enable ${what}."; };
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    getExe = p: "${p}/bin/${p.meta.mainProgram or p.pname}";
    cleanSource = p: p;
    cleanSourceWith = { src, ... }: src;
    evalModules = { modules, specialArgs ? { } }: evaluate { inherit modules; args = specialArgs; };
    licenses.asl20 = { spdxId = "Apache-2.0"; };
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
  };
in
lib
