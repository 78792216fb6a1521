# A small stand-in for nixpkgs' lib: the module system as far as the module of nixrun needs it, written for these tests.
# Priorities, conditions, merging by type and options declared in several places work as in nixpkgs; messages are shorter.
let
  inherit (builtins) all any attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl'
    genList getAttr hasAttr head isAttrs isBool isFunction isInt isList isPath isString length listToAttrs mapAttrs
    match removeAttrs sort split stringLength substring tail toJSON typeOf zipAttrsWith;

  ofType = type: value: isAttrs value && value._type or null == type;

  # -- priorities and conditions
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOptionDefault = mkOverride 1500;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOption = option: option // { _type = "option"; };
  mkEnableOption = name: mkOption { type = types.bool; default = false; description = "Whether to enable ${name}."; };

  # What a definition says, as values with priorities.
  definitions = value:
    if ofType "merge" value then concatMap definitions value.contents
    else if ofType "if" value then (if value.condition then definitions value.content else [ ])
    else if ofType "override" value then map (d: d // { inherit (value) priority; }) (definitions value.content)
    else [ { inherit value; priority = 100; } ];
  strongest = defs:
    let best = foldl' (a: d: if d.priority < a then d.priority else a) 100000 defs;
    in map (d: d.value) (filter (d: d.priority == best) defs);

  # mkIf and mkMerge around attribute sets move inwards, so that the names can be asked for without the conditions.
  pushDown = config:
    if ofType "merge" config then concatMap pushDown config.contents
    else if ofType "if" config then map (mapAttrs (_: mkIf config.condition)) (pushDown config.content)
    else if ofType "override" config then map (mapAttrs (_: mkOverride config.priority)) (pushDown config.content)
    else [ config ];

  # -- types: check, merge, and what two declarations of one option come to
  type = t: { merge = one; both = other: if other.name == t.name then type t else null; } // t;
  at = loc: concatStringsSep "." loc;
  one = loc: values:
    if all (v: v == head values) values then head values
    else throw "The option `${at loc}' has conflicting definition values";
  simple = name: check: type { inherit name check; };
  types = rec {
    unspecified = type { name = "unspecified"; check = _: true; merge = mergeAny; };
    anything = unspecified // { name = "anything"; };
    raw = simple "raw" (_: true);
    bool = simple "bool" isBool;
    int = simple "int" isInt;
    str = simple "str" isString;
    package = simple "package" (v: isAttrs v || isString v);
    path = simple "path" (v: isPath v || (isAttrs v && v ? outPath) || (isString v && substring 0 1 v == "/"));
    lines = type { name = "lines"; check = isString; merge = _: concatStringsSep "\n"; };
    port = simple "port" (v: isInt v && v >= 0 && v <= 65535);
    ints = {
      between = low: high: simple "int between" (v: isInt v && v >= low && v <= high);
      positive = simple "positive int" (v: isInt v && v > 0);
      u32 = simple "u32" (v: isInt v && v >= 0 && v <= 4294967295);
    };
    strMatching = pattern: simple "strMatching" (v: isString v && match pattern v != null);
    enum = values: simple "enum" (v: elem v values);
    attrs = type { name = "attrs"; check = isAttrs; merge = _: foldl' (a: b: a // b) { }; };
    nullOr = t: type {
      name = "nullOr";
      check = v: v == null || t.check v;
      merge = loc: values: if any (v: v == null) values then one loc values else t.merge loc values;
      both = other: let inner = t.both (other.inner or { name = ""; }); in if inner == null then null else nullOr inner;
      inner = t;
    };
    either = a: b: type {
      name = "either";
      check = v: a.check v || b.check v;
      merge = loc: values: if all a.check values then a.merge loc values else if all b.check values then b.merge loc values
        else one loc values;
    };
    oneOf = list: foldl' either (head list) (tail list);
    listOf = t: type {
      name = "listOf";
      check = isList;
      merge = loc: values: map (v: checked t loc [ v ]) (concatLists values);
      both = other: let inner = t.both (other.inner or { name = ""; }); in if inner == null then null else listOf inner;
      inner = t;
    };
    attrsOf = t: type {
      name = "attrsOf";
      check = isAttrs;
      merge = loc: values:
        let
          pushed = concatMap pushDown values;
          names = zipAttrsWith (_: concatMap definitions) pushed;
          kept = filter (name: names.${name} != [ ]) (attrNames names);
        in listToAttrs (map (name: { inherit name; value = checked t (loc ++ [ name ]) (strongest names.${name}); }) kept);
      both = other: let inner = t.both (other.inner or { name = ""; }); in if inner == null then null else attrsOf inner;
      inner = t;
    };
    submodule = module: submoduleWith [ module ];
    submoduleWith = modules: type {
      name = "submodule";
      check = v: isAttrs v || isFunction v;
      merge = loc: values: (evalModules {
        inherit loc;
        modules = modules ++ map (v: if isFunction v then v else { config = v; }) values;
        specialArgs.name = elemAt loc (length loc - 1);
      }).config;
      both = other: if other.name == "submodule" then submoduleWith (modules ++ other.modules) else null;
      inherit modules;
    };
  };
  # Without a type: what merges, merges.
  mergeAny = loc: values:
    if length values == 1 then head values
    else if all isAttrs values then foldl' (a: b: a // b) { } values
    else if all isList values then concatLists values
    else one loc values;
  checked = t: loc: values:
    if all t.check values then t.merge loc values
    else throw "A definition for option `${at loc}' is not of type `${t.name}'";

  # -- modules
  evalModules = { modules, specialArgs ? { }, loc ? [ ] }:
    let
      base = { inherit lib config options; } // specialArgs;
      # What only `_module.args` gives is looked up when it is used.
      argument = name: base.${name} or config._module.args.${name};
      collect = module:
        let
          value = if isPath module || isString module then import module else module;
          called = if isFunction value then value (mapAttrs (name: _: argument name) (builtins.functionArgs value) // base)
            else value;
          structured = called ? config || called ? options || called ? imports;
        in [ (if structured then called else { config = called; }) ] ++ concatMap collect (called.imports or [ ]);
      all' = concatMap collect modules;
      declared = map (m: m.options or { }) all';
      defined = concatMap (m: pushDown (m.config or (removeAttrs m [ "imports" "options" "config" "meta" ]))) all';
      build = loc: declarations: configs:
        let
          declaredNames = zipAttrsWith (_: v: v) declarations;
          configured = zipAttrsWith (_: v: v) configs;
          result = mapAttrs (name: declarations:
            let here = loc ++ [ name ]; defs = configured.${name} or [ ];
            in if all (ofType "option") declarations then leaf here (merged here declarations) defs
            else if any (ofType "option") declarations then throw "The option `${at here}' is a prefix of options"
            else build here declarations (concatMap pushDown defs)) declaredNames;
          unknown = filter (name: ! hasAttr name declaredNames && name != "_module") (attrNames configured);
        in if unknown == [ ] then result
          else throw "The option `${at (loc ++ [ (head unknown) ])}' does not exist";
      # Two declarations of one option: the types are put together, everything else may be said once.
      merged = here: declarations: foldl' (a: b:
        let
          twice = filter (key: a ? ${key} && b ? ${key}) [ "default" "example" "description" "apply" ];
          both = (a.type or types.unspecified).both (b.type or types.unspecified);
        in if twice != [ ] || (a ? type && b ? type && both == null) then throw "The option `${at here}' is already declared"
          else a // b // (if a ? type && b ? type then { type = both; } else { })) (head declarations) (tail declarations);
      leaf = here: option: defs:
        let
          t = option.type or types.unspecified;
          given = concatMap definitions defs;
          withDefault = given ++ (if option ? default then [ { value = option.default; priority = 1500; } ] else [ ]);
          value = if withDefault == [ ] then throw "The option `${at here}' is used but not defined"
            else checked t here (strongest withDefault);
          readOnly = option.readOnly or false && length given > 1;
        in {
          _leaf = true;
          isDefined = given != [ ];
          value = if readOnly then throw "The option `${at here}' is read-only" else (option.apply or (v: v)) value;
        };
      values = tree: if tree._leaf or false then tree.value else mapAttrs (_: values) (removeAttrs tree [ "_leaf" ]);
      tree = build loc declared defined;
      moduleArgs = foldl' (a: c: a // (c._module.args or { })) { } defined;
      options = tree;
      config = values tree // { _module.args = moduleArgs; };
    in { inherit options; config = removeAttrs config [ "_module" ]; };

  strings = rec {
    inherit concatStringsSep;
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasInfix = infix: text: length (filter isString (split (escape infix) text)) > 1;
    hasSuffix = suffix: text:
      let n = stringLength text - stringLength suffix; in n >= 0 && substring n (stringLength text) text == suffix;
    escape = builtins.replaceStrings [ "." "*" "+" "?" "(" ")" "[" "]" "{" "}" "^" "$" "|" "\\" ]
      [ "\\." "\\*" "\\+" "\\?" "\\(" "\\)" "\\[" "\\]" "\\{" "\\}" "\\^" "\\$" "\\|" "\\\\" ];
    splitString = separator: text: filter isString (split (escape separator) text);
    optionalString = condition: text: if condition then text else "";
    concatMapStrings = f: list: concatStringsSep "" (map f list);
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    versionAtLeast = a: b: builtins.compareVersions a b >= 0;
    versionOlder = a: b: builtins.compareVersions a b < 0;
  };
  attrsets = rec {
    filterAttrs = predicate: set: removeAttrs set (filter (name: ! predicate name set.${name}) (attrNames set));
    filterAttrsRecursive = predicate: set: mapAttrs
      (_: v: if isAttrs v then filterAttrsRecursive predicate v else v) (filterAttrs predicate set);
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: listToAttrs (map (name: { inherit name; value = f name; }) names);
    optionalAttrs = condition: set: if condition then set else { };
    recursiveUpdate = a: b: a // mapAttrs
      (name: v: if isAttrs v && isAttrs (a.${name} or null) then recursiveUpdate a.${name} v else v) b;
    attrByPath = path: default: set:
      if path == [ ] then set else if set ? ${head path} then attrByPath (tail path) default set.${head path} else default;
  };
  lists = {
    inherit any all filter head tail elem length concatMap concatLists foldl';
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: values: if condition then values else [ ];
    flatten = list: if isList list then concatMap lists.flatten list else [ list ];
    unique = foldl' (seen: v: if elem v seen then seen else seen ++ [ v ]) [ ];
    intersectLists = a: filter (v: elem v a);
  };
  lib = {
    inherit evalModules types mkOption mkEnableOption mkIf mkMerge mkOverride mkDefault mkOptionDefault mkForce
      strings attrsets lists;
    inherit (builtins) mapAttrs attrNames attrValues toJSON isInt isString isAttrs isList hasAttr;
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    mkPackageOption = pkgs: name: options: mkOption ({ type = types.package; default = pkgs.${name}; }
      // removeAttrs options [ "pkgsText" ]);
    getExe = package: "${package}/bin/${package.meta.mainProgram}";
    escapeShellArg = text: "'${builtins.replaceStrings [ "'" ] [ "'\\''" ] (toString text)}'";
    boolToString = b: if b then "true" else "false";
  } // strings // attrsets // lists;
in lib
