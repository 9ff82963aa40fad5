# OVHcloud Object Storage: every region by its code, which is also the region that requests are signed for.
let
  oneZone = place: {
    inherit place;
    zones = 1;
    tiers = [ "standard" "high-performance" ];
  };
  threeZones = place: {
    inherit place;
    zones = 3;
    tiers = [ "standard" ];
  };
in
{
  gra = oneZone "Gravelines";
  rbx = oneZone "Roubaix";
  sbg = oneZone "Strasbourg";
  de = oneZone "Frankfurt";
  uk = oneZone "London";
  waw = oneZone "Warsaw";
  bhs = oneZone "Beauharnois";
  ca-east-tor = oneZone "Toronto";
  sgp = oneZone "Singapore";
  ap-southeast-syd = oneZone "Sydney";
  ap-south-mum = oneZone "Mumbai";
  eu-west-par = threeZones "Paris";
  eu-south-mil = threeZones "Milan";
}
